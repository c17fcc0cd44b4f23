"""How long tests wait."""

#: Seconds after which a wait is taken for a hang.  It decides nothing else: what is waited for
#: comes in milliseconds, and on a busy machine of two cores now and then in tens of seconds.
PATIENCE = 60.0
