"""A trivial Django view, under gunicorn: what a request costs at least.

Run by gunicorn with this file as its configuration too; prints `worker PID` once a worker serves.
"""
import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

bind = "127.0.0.1:0"
workers = 1


def post_worker_init(worker):
    """gunicorn's hook."""
    port = worker.sockets[0].getsockname()[1]
    print("worker %d %d" % (worker.pid, port), flush=True)


def view(request):
    """Answers with as little as can be."""
    return HttpResponse("ok")


urlpatterns = [path("", view)]

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["127.0.0.1"],
        MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
        ROOT_URLCONF=__name__,
        SECRET_KEY="signs nothing",
    )
    django.setup()

application = get_wsgi_application()
