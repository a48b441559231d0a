-- Who is greylisted becomes a list like the others. Additive: hosts that do not know these lists yet pass over their entries.
alter table acl drop constraint acl_list_check;
alter table acl add constraint acl_list_check check (list in ('client_whitelist', 'client_blacklist', 'sender_whitelist',
    'sender_blacklist', 'recipient_whitelist', 'recipient_blacklist', 'optin', 'optout'));

-- How long the key had to wait in all; null where that is not known.
alter table explain add column delay_ms bigint;
