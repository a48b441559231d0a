-- Access lists in the store, beside the list files. Times are milliseconds since 1970. The columns are those of the PostgreSQL schema.
create table acl (
    list    text not null check (list in ('client_whitelist', 'client_blacklist', 'sender_whitelist',
                'sender_blacklist', 'recipient_whitelist', 'recipient_blacklist')),
    entry   text not null,  -- as in a list file: 192.0.2.0/24, example.org, user@example.org, /regular expression/
    comment text not null default '',
    author  text not null default '',
    created integer not null default (cast(unixepoch('subsec') * 1000 as integer)),
    expires integer,        -- not in force from then on; null: no end
    primary key (list, entry)
) strict, without rowid;

-- One row; the number grows with every change, whoever makes it and with whatever program.
create table acl_version (
    one     integer primary key default 1 check (one = 1),
    version integer not null
) strict;
insert into acl_version (version) values (0);

create trigger acl_inserted after insert on acl begin update acl_version set version = version + 1; end;
create trigger acl_updated after update on acl begin update acl_version set version = version + 1; end;
create trigger acl_deleted after delete on acl begin update acl_version set version = version + 1; end;
