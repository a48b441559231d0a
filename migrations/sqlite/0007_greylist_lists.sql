-- Who is greylisted becomes a list like the others. SQLite cannot change a check; the table is made anew.
create table acl_anew (
    list    text not null check (list in ('client_whitelist', 'client_blacklist', 'sender_whitelist', 'sender_blacklist',
                'recipient_whitelist', 'recipient_blacklist', 'optin', 'optout')),
    entry   text not null,  -- as in a list file: 192.0.2.0/24, example.org, user@example.org, /regular expression/
    comment text not null default '',
    author  text not null default '',
    created integer not null default (cast(unixepoch('subsec') * 1000 as integer)),
    expires integer,        -- not in force from then on; null: no end
    primary key (list, entry)
) strict, without rowid;
insert into acl_anew select list, entry, comment, author, created, expires from acl;
drop table acl;
alter table acl_anew rename to acl;

create trigger acl_inserted after insert on acl begin update acl_version set version = version + 1; end;
create trigger acl_updated after update on acl begin update acl_version set version = version + 1; end;
create trigger acl_deleted after delete on acl begin update acl_version set version = version + 1; end;

-- How long the key had to wait in all; null where that is not known.
alter table explain add column delay_ms integer;
