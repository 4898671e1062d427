"""A small site whose workers read the source of Django: it uses all that django-rq-graceful offers."""
