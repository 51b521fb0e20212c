"""The dashboard: what the store has, as pages and as data, for browsers, scripts and Prometheus.

Pages are drawn here and work without a script; the one script brings the live page up to date.
"""
