"""The routes: four that leak, their clean twin, and a page that lists them."""

from django.urls import path

from assistant import views

urlpatterns = [
    path("", views.index),
    path("api/login", views.login),
    path("api/tools", views.tools),
    path("api/chat", views.chat),
    path("api/thumbnail", views.thumbnail),
    path("api/preview", views.preview),
]
