"""The console door: health, metrics and the JSON API, on Hypercorn and quart-trio behind guards.

`server.py` listens, `connection.py` carries one connection, `guard.py` checks one request,
`app.py` routes it, `services.py` is what the rest of the process must offer. Nothing outside this
package imports Quart or Hypercorn.
"""
