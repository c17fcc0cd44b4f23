"""Every way a conversation is read.

A read is one named query of ``sql/queries``; who may see what is part of that query.  Answers come
as JSON texts made by PostgreSQL: the server passes them on as they are, the library decodes them.
"""
