"""One view an endpoint. All of them look harmless, which is the point."""

from django.http import JsonResponse
from django.shortcuts import render

from assistant import agents, sessions, thumbnails
from assistant.tools import ClientManager

ENDPOINTS = [
    ("/api/login", "opens a session that never expires"),
    ("/api/tools", "connects to a tool server through an exit stack that is never closed"),
    ("/api/chat", "runs an agent without cleaning up behind it"),
    ("/api/thumbnail", "calls native code that forgets to free"),
    ("/api/preview", "does all of it, and cleans up"),
]

# One for the process, as the users of such managers are told to keep it.
TOOLS = ClientManager()


def index(request):
    """Lists what there is to try."""
    return render(request, "index.html", {"endpoints": ENDPOINTS})


def login(request):
    """Leak 1."""
    session = sessions.open_session(user="demo")
    return JsonResponse({"session": session.key})


def tools(request):
    """Leak 2."""
    connection = TOOLS.connect("search")
    return JsonResponse({"answer": connection.call("ping")})


def chat(request):
    """Leak 3."""
    agent = agents.Agent()
    return JsonResponse({"reply": agent.run("What do you remember?")})


def thumbnail(request):
    """Leak 4."""
    return JsonResponse({"lost": thumbnails.make()})


def preview(request):
    """The clean twin: everything above, given back before the response is sent.

    It shares no list or dict with the leaks, or it would now and then pay for their growth.
    """
    session = sessions.temporary_session(user="demo")
    agent = agents.Agent(subscribers=[])
    try:
        with ClientManager() as manager:
            answer = manager.connect("search").call(session.key[:4])
        reply = agent.run(answer)
    finally:
        agent.close()
    return JsonResponse({"reply": reply, "sample": thumbnails.preview()})
