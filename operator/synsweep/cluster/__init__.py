"""The API server: the only package that imports kubernetes and tenacity.

Synchronous, one thread per caller: every request has a connect and a read timeout, bodies are raw
JSON (the client's models are slow and big), and what goes wrong is translated here, at the border,
into `errors.ApiUnavailable` (try again) or `errors.ApiRefused` (the API server's own words say
why). It decides nothing.
"""
