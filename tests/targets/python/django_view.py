"""A trivial Django view behind Django's usual middleware, under gunicorn: what a request costs at least.

gunicorn runs this file, which is its configuration too; prints `worker PID PORT` once a worker serves.
"""
import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.template import Context, Engine
from django.urls import path

bind = "127.0.0.1:0"
workers = 1

TEMPLATE = Engine().from_string(
    "<ul>{% for item in items %}<li>{{ item.name|title }}: {{ item.price }}</li>{% endfor %}</ul>"
)
ITEMS = [{"name": "item %d" % number, "price": number} for number in range(10)]


def post_worker_init(worker):
    """gunicorn's hook."""
    port = worker.sockets[0].getsockname()[1]
    print("worker %d %d" % (worker.pid, port), flush=True)


def view(request):
    """Renders a short list."""
    return HttpResponse(TEMPLATE.render(Context({"items": ITEMS})))


urlpatterns = [path("", view)]

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["127.0.0.1"],
        INSTALLED_APPS=["django.contrib.sessions", "django.contrib.messages"],
        MESSAGE_STORAGE="django.contrib.messages.storage.cookie.CookieStorage",
        MIDDLEWARE=[
            "django.middleware.security.SecurityMiddleware",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
            "django.middleware.clickjacking.XFrameOptionsMiddleware",
        ],
        ROOT_URLCONF=__name__,
        SECRET_KEY="signs nothing",
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    )
    django.setup()

application = get_wsgi_application()
