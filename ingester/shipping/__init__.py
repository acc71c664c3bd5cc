"""Ways to ship the program: one file (`binary`), a systemd unit, a container.

Nothing else imports this room. Its texts (`ingester.service`, `Containerfile`, `launcher.sh`) are
data of the package, so that an installed program can print them.
"""
