"""The registry's store: whose it is, which blobs must be in it, and what adds, reads and removes them.

=============  ==================================================================
``identity``   whether a store is the one that the database writes to
``needed``     which blobs the database and the channels' pointers need
``claims``     what lets storing and removing blobs go on beside each other
``gc``         removing what nothing needs
``scrub``      reading all that is needed, and who suffers where it is damaged
``stores``     showing, copying, moving and adopting a whole store
=============  ==================================================================
"""
