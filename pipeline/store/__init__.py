"""Every SQL statement, each with a name and a why. Functions take `conn`, never commit, return schemas, and import no step.

ledger        chains, entries, content; reading them all in order, to verify and export them
deliveries    deliveries planned, claimed and settled, and their endpoints
dead_letters  dead letters, and the decisions about them
mail          mailboxes, what was pulled from them, the documents of mails
access        tokens, sessions and logins of the console and the API
config        tenants, sources and endpoints, and changes to them
admin         audit, operator events, queries and counts for operators, the version of the schema
"""
