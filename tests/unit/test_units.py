import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrun.units import GIB, KIB, MIB, TIB, format_bytes, format_rate, format_seconds, parse_bytes

amounts = st.integers(min_value=0, max_value=4 * TIB)


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("0", 0),
        ("1000", 1000),
        ("1000B", 1000),
        ("1K", 1024),
        ("36KiB", 36 * KIB),
        ("512MiB", 512 * MIB),
        ("512mb", 512 * MIB),
        ("8G", 8 * GIB),
        ("8GB", 8 * GIB),
        ("8GiB", 8 * GIB),
        ("8 gib", 8 * GIB),
        (" 8GiB\n", 8 * GIB),
        ("2.5GiB", 5 * GIB // 2),
        (".5g", GIB // 2),
        ("1.5T", 3 * TIB // 2),
        ("0.3", 0),
        ("999999999999999", 999_999_999_999_999),
    ],
)
def test_amounts_are_read_as_people_write_them(text, n_bytes):
    assert parse_bytes(text) == n_bytes


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "banana",
        "GiB",
        "-1",
        "-3GiB",
        "+1",
        "1.",
        "1.2.3",
        "1,5G",
        "8GiBs",
        "8 G iB",
        "8XB",
        "1e9",
        "0x10",
        "9" * 400,
        "8iB8",
    ],
)
def test_what_is_no_amount_is_refused_by_its_text(text):
    with pytest.raises(ValueError, match=r"not an amount of memory: .*8GiB") as refused:
        parse_bytes(text)
    assert repr(text) in str(refused.value)


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 B"),
        (12, "12 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (36 * KIB, "36.0 KiB"),
        (5 * GIB // 2, "2.5 GiB"),
        (13.3e9, "12.4 GiB"),
        (3 * TIB, "3.0 TiB"),
        (5000 * TIB, "5000.0 TiB"),
        (-3 * MIB, "-3.0 MiB"),
    ],
)
def test_bytes_as_text(n_bytes, text):
    assert format_bytes(n_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.34, "340 ms"),
        (1, "1.0 s"),
        (4.24, "4.2 s"),
        (60, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 00 min"),
        (7380, "2 h 03 min"),
    ],
)
def test_seconds_as_text(seconds, text):
    assert format_seconds(seconds) == text


def test_a_rate_is_bytes_per_second():
    assert format_rate(5 * GIB / 2) == "2.5 GiB/s"


@given(amounts)
def test_every_int_reads_back_as_itself(n_bytes):
    assert parse_bytes(str(n_bytes)) == n_bytes
    assert parse_bytes(f"{n_bytes} B") == n_bytes


@given(amounts)
def test_text_reads_back_within_what_it_rounds_away(n_bytes):
    text = format_bytes(n_bytes)
    unit = {"B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB}[text.split()[1]]
    assert abs(parse_bytes(text) - n_bytes) <= 0.05 * unit + 1


@given(st.integers(min_value=0, max_value=10**5), st.sampled_from("KMGT"))
def test_gb_and_g_mean_gib(number, letter):
    readings = {parse_bytes(f"{number}{unit}") for unit in (letter, f"{letter}B", f"{letter}iB", f"{letter.lower()}b")}
    assert readings == {number * 1024 ** ("KMGT".index(letter) + 1)}


@given(st.text(max_size=12))
def test_any_text_is_an_amount_or_a_value_error(text):
    try:
        n_bytes = parse_bytes(text)
    except ValueError:
        return
    assert n_bytes >= 0
    assert any(character.isdigit() for character in text)


@given(st.floats(min_value=0, max_value=1e6), st.floats(min_value=0, max_value=1e6))
def test_a_longer_time_never_reads_as_a_shorter_one(one, other):
    assert in_seconds(format_seconds(min(one, other))) <= in_seconds(format_seconds(max(one, other)))


def in_seconds(text):
    words = text.split()
    factors = {"ms": 0.001, "s": 1, "min": 60, "h": 3600}
    return sum(float(number) * factors[unit] for number, unit in zip(words[::2], words[1::2], strict=True))
