-- What the spam rules have done, day by day: added up by every host once a minute. Days are UTC, counted from 1970.
create table spam_rule_day (
    day             bigint not null,
    rule            text collate "C" not null,
    hits            bigint not null,    -- messages that it hit
    decided         bigint not null,    -- of these, messages that were tagged or spam
    marginal        bigint not null,    -- of these, messages that would have been treated in another way without its score
    points          bigint not null,    -- what it added to scores, in thousandths
    told_spam       bigint not null,    -- hits in messages of which people said that they are spam
    told_ham        bigint not null,    -- hits in messages of which people said that they are none
    false_positives bigint not null,    -- of told_ham, those that it gave points
    false_negatives bigint not null,    -- of told_spam, those from which it took points
    cost            bigint not null,    -- processor time, nanoseconds
    primary key (day, rule)
) with (fillfactor = 70);

create table spam_day (
    day             bigint not null primary key,
    messages        bigint not null,    -- messages that the rules were run on
    tagged          bigint not null,    -- of these, tagged only
    spam            bigint not null,
    measured        bigint not null,    -- messages for which the cost of rules was measured
    told_spam       bigint not null,    -- messages of which people said that they are spam
    told_ham        bigint not null,
    false_positives bigint not null,    -- of told_ham, those that were tagged or spam
    false_negatives bigint not null     -- of told_spam, those that were neither
) with (fillfactor = 70);

-- What has been added already, so that a host that did not hear the answer can safely send the same figures again.
create table spam_batch (
    id text collate "C" not null primary key,
    at bigint not null                  -- clock of the database, milliseconds since 1970
);

create index spam_batch_at on spam_batch (at);
