"""What no plan can beat: a linear relaxation of the problem, solved by HiGHS, and the bound that it proves."""
