"""Every way a conversation changes, one verb a file.

A verb checks its draft as a value and calls its SQL function, which decides under the
conversation's row lock.  Who may do it is decided there too, in the same transaction.
"""
