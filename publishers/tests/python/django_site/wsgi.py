"""What a server imports."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "publishers.tests.python.django_site.settings")

application = get_wsgi_application()
