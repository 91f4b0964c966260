"""The sealer: signs, publishes and anchors the tenants' logs. It positions nothing and writes no entry."""
