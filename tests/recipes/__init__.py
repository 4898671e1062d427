"""The recipes of docs/recipes, tried with the programs that they are for: not part of ``make test``.

Needs Linux, root (or user namespaces; the systemd of ``test_systemd.py`` needs root), Debian's packages tini and
docker-compose, and the extra ``recipes``.
"""
