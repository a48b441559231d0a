-- What the spam rules have done, day by day: added up by every host once a minute. The columns are those of the PostgreSQL schema.
create table spam_rule_day (
    day             integer not null,    -- days since 1970, UTC
    rule            text not null,
    hits            integer not null,    -- messages that it hit
    decided         integer not null,    -- of these, messages that were tagged or spam
    marginal        integer not null,    -- of these, messages that would have been treated in another way without its score
    points          integer not null,    -- what it added to scores, in thousandths
    told_spam       integer not null,    -- hits in messages of which people said that they are spam
    told_ham        integer not null,    -- hits in messages of which people said that they are none
    false_positives integer not null,    -- of told_ham, those that it gave points
    false_negatives integer not null,    -- of told_spam, those from which it took points
    cost            integer not null,    -- processor time, nanoseconds
    primary key (day, rule)
) strict, without rowid;

create table spam_day (
    day             integer not null primary key,
    messages        integer not null,    -- messages that the rules were run on
    tagged          integer not null,    -- of these, tagged only
    spam            integer not null,
    measured        integer not null,    -- messages for which the cost of rules was measured
    told_spam       integer not null,    -- messages of which people said that they are spam
    told_ham        integer not null,
    false_positives integer not null,    -- of told_ham, those that were tagged or spam
    false_negatives integer not null     -- of told_spam, those that were neither
) strict;

-- What has been added already, so that a host that did not hear the answer can safely send the same figures again.
create table spam_batch (
    id text not null primary key,
    at integer not null                 -- milliseconds since 1970
) strict, without rowid;

create index spam_batch_at on spam_batch (at);
