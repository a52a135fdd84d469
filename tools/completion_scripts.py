"""Scripts that have a shell ask llmrun what may stand at the cursor, by the protocol of Typer.

The script for fish is Typer's own. Its script for bash knows nothing of words with a colon, as `smollm2:135m`, and its
script for zsh does nothing at the first Tab where compinit finds it; so these two are ours.
"""

from __future__ import annotations

from collections.abc import Mapping

from typer.completion import get_completion_script  # type: ignore[attr-defined]

NOTE = "Made by tools/manual.py."

BASH = r"""# bash completion for PROGRAM. NOTE

_PROGRAM_completion() {
    # Bash also breaks words at ':' and '=', which PROGRAM does not: join what no blank stands between.
    local rest=${COMP_LINE:0:COMP_POINT} words=() i
    for ((i = 0; i <= COMP_CWORD; i++)); do
        if ((i == 0)) || [[ $rest == [[:blank:]]* ]]; then
            rest=${rest#"${rest%%[![:blank:]]*}"}
            words+=("")
        fi
        if ((i == COMP_CWORD)); then
            words[-1]+=$rest
        else
            words[-1]+=${COMP_WORDS[i]}
            rest=${rest#"${COMP_WORDS[i]}"}
        fi
    done

    # Readline keeps what stands before the last break, and replaces the rest.
    local word=${words[-1]#--*=} kept=""
    if [[ $COMP_WORDBREAKS == *:* && $word == *:* ]]; then
        kept=${word%:*}:
    fi

    local IFS=$'\n'
    COMPREPLY=($(
        COMP_WORDS="${words[*]}" COMP_CWORD=$((${#words[@]} - 1)) VARIABLE=complete_bash "$1" 2>/dev/null
    ))
    COMPREPLY=("${COMPREPLY[@]#"$kept"}")
}

complete -o default -F _PROGRAM_completion PROGRAM
"""

ZSH = r"""#compdef PROGRAM
# zsh completion for PROGRAM. NOTE

_PROGRAM_completion() {
    compset -P '--*='  # the answer is for what stands after it
    eval "$(_TYPER_COMPLETE_ARGS="${(pj: :)words[1,CURRENT]}" VARIABLE=complete_zsh ${~words[1]} 2>/dev/null)"
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _PROGRAM_completion "$@"  # compinit found this file, and calls it for the first Tab
else
    compdef _PROGRAM_completion PROGRAM
fi
"""


def scripts(program: str, variable: str) -> Mapping[str, str]:
    """File name -> script, for a program that answers when ``variable`` is set."""

    def filled(template: str) -> str:
        return template.replace("PROGRAM", program).replace("VARIABLE", variable).replace("NOTE", NOTE)

    fish = get_completion_script(prog_name=program, complete_var=variable, shell="fish")
    return {
        f"{program}.bash": filled(BASH),
        f"_{program}": filled(ZSH),
        f"{program}.fish": f"# fish completion for {program}. {NOTE}\n{fish}\n",
    }
