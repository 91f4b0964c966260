"""Every SQL statement, each with a name and a why. Functions take `conn`, never commit, return schemas, and import no step.

ledger        chains, entries, content; the whole of it in order, for those who verify and export it
deliveries    planned, claimed, settled; the endpoints that they are for
dead_letters  what stopped, and what was decided about it
mail          mailboxes, what was pulled from them, the documents of mails
config        what is configured, and how that changes
admin         what operators ask for and are told, how much there is of everything, the version of the schema
"""
