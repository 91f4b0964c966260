"""What happens to a message, in route order.

    step       module       durable after                          if the process dies here
    receive    receive      nothing new: the caller publishes it   the sender gets no 202
    admit      admit        nothing new: the broker holds it       redelivered
    dedupe     dedupe       nothing new                            redelivered
    chain      chain        nothing new                            redelivered
    fan out    fanout       nothing new                            redelivered
    append     append       COMMIT, by the caller; then the ack    redelivered before COMMIT, a duplicate after it
    claim      claim        a lease: COMMIT, by the caller         the lease ends, claimed again
    deliver    deliver      nothing new: a lease is on the row     the lease ends, claimed again: sent twice under one id
    settle     settle       COMMIT, by the caller                  as deliver
    bury       bury         COMMIT, by the caller; then the ack    redelivered before COMMIT

This folder holds the route and nothing else; its steps use the folders: `formats` parses what comes in, `sources` checks the
senders' signatures, `delivery` holds its rules, `mail` parses mails, `ledger` verifies the ledger, `store` has every SQL
statement. Nothing here logs, counts, reads a clock or commits: it takes `conn`, `now` and a policy, and returns facts.
"""
