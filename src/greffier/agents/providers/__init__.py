"""Providers of models, behind one small protocol.

``protocol`` says what is asked, what comes back and how it can fail; ``registry`` finds a provider
by its name.  The SDKs of ``openai`` and ``anthropic`` take most of a second to import, so that each
is imported when it is first asked, in a thread, and never by a server that only keeps records.
"""
