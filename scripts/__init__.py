"""Executables for the desk and CI, and the packages behind them."""
