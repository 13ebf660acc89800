"""Rotation of database credentials: the subject, without queue, web server or environment.

One word a thing, in code, tables, log events, the command line and the documents:

installation
    a customer team's installation of the provider's integration (`icfg_…`), with the token that we push with. *Parked* when its token
    is refused.
server
    a database server: host, port, TLS, admin credential, how many connections we may use. Resources name one.
resource
    one database of a customer, known to Vercel by (installation, resource id); it has an engine, a server, a policy and secret
    templates. `active`, `paused` (a person holds it back), `leaving`, `gone`. *Held*: we have paused it ourselves, with a reason.
secret
    one environment variable that Vercel holds for the resource: name, value, prefix, values per environment.
credential
    one generation of login (user name and password) of a resource; generations are numbered 1, 2, 3 … and never reused.
stage
    where a credential stands: `pending`, `current`, `previous`, `blocked`, `retired`; `discarding`, `discarded` (it never reached
    Vercel). "State" is said of rotations and resources.
request
    one trigger: who, why, key, grace wanted, received when. Triggers: `schedule`, `manual`, `vercel`, `emergency`.
rotation
    one replacement of the current credential by a new one, and its record.
attempt
    one push to Vercel: a row that is never deleted. *On its way* while Vercel may still apply it; *clean* when nothing of another value
    was on its way as it was sent.
grace period
    how long a previous credential keeps working, counted from the clean acknowledgement of its successor.
retire, revoke
    retire: what happens to a previous credential as a whole. Revoke: block, end sessions, remove; after it nobody can log in with it.
waiting for use
    a previous credential whose grace is over but which is still used.
astray
    a login that is not as its row says: it must work and does not, or has ended and is there again. The *healer* puts it right.
orphan
    a login that carries our mark and has no row.
engine
    the adapter for one kind of database.
policy
    when a resource rotates and how long grace lasts.
claim
    a worker's time-limited hold on a row, with a fence number that grows with every claim.
"""
