"""How long a candidate plan takes: what every choice costs, and the pipeline that it makes."""
