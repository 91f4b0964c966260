"""The processes. They are thin: no rules, which are in `pipeline`. No other package talks to the network."""
