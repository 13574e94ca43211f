-- The words of a message's life, and its id.

CREATE TYPE sms_outbox.dispatch_status AS ENUM
    ('pending', 'sending', 'sent', 'failed', 'dispatch_timeout', 'canceled', 'expired');
COMMENT ON TYPE sms_outbox.dispatch_status IS 'Where a message is in its life. pending: waits; sending: leased to one attempt; sent: a provider accepted it; failed: known not sent, given up; dispatch_timeout: nobody knows whether it was sent; canceled, expired: taken back, or out of time, before any request of the last try.';

CREATE TYPE sms_outbox.attempt_status AS ENUM
    ('not_sent', 'refused_recipient', 'refused_content', 'refused_account', 'throttled', 'accepted', 'unclear');
COMMENT ON TYPE sms_outbox.attempt_status IS 'How one attempt ended. refused_account and throttled mean ''not now'' and are not counted against max_attempts.';

-- In this order, so that the greatest of a message's attempts is what is known of the message.
CREATE TYPE sms_outbox.certainty AS ENUM ('not_sent', 'unknown', 'possible', 'likely', 'sent');
COMMENT ON TYPE sms_outbox.certainty IS 'How sure it is that an attempt sent its message. not_sent: nothing went out, or the provider refused it; unknown: the worker died or was cut off, not even known whether its request began; possible: the request began, and no answer says what became of it; likely: the provider answered with success, in words that could not be read; sent: accepted, or proven since.';

CREATE TYPE sms_outbox.delivery_status AS ENUM
    ('unknown', 'queued', 'delivered', 'undelivered', 'rejected', 'expired');
COMMENT ON TYPE sms_outbox.delivery_status IS 'What the provider''s receipts say of a sent message; unknown while there is none.';

-- A message id is a UUID version 7 that reads as 'r' and 26 characters. As a type of its own it is stored in 16 bytes,
-- and WHERE id = 'r01…' is an index look-up everywhere, also through views.
CREATE TYPE sms_outbox.message_id;

CREATE FUNCTION sms_outbox.message_id_in(cstring) RETURNS sms_outbox.message_id
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'message_id_in_wrapper';
CREATE FUNCTION sms_outbox.message_id_out(sms_outbox.message_id) RETURNS cstring
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'message_id_out_wrapper';
CREATE FUNCTION sms_outbox.message_id_recv(internal) RETURNS sms_outbox.message_id
    LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'uuid_recv';
CREATE FUNCTION sms_outbox.message_id_send(sms_outbox.message_id) RETURNS bytea
    LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'uuid_send';

CREATE TYPE sms_outbox.message_id (
    INPUT = sms_outbox.message_id_in, OUTPUT = sms_outbox.message_id_out,
    RECEIVE = sms_outbox.message_id_recv, SEND = sms_outbox.message_id_send,
    LIKE = uuid, CATEGORY = 'S' -- so that cancel('r01…') means cancel(message_id), not cancel(jsonb)
);
COMMENT ON TYPE sms_outbox.message_id IS 'Id of a message: a UUID version 7, written as r and its 26-character lower-case Crockford base 32. Ids sort by time.';

CREATE FUNCTION sms_outbox.message_id_lt(sms_outbox.message_id, sms_outbox.message_id) RETURNS boolean
    LANGUAGE c IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME', 'message_id_lt_wrapper';
CREATE FUNCTION sms_outbox.message_id_le(sms_outbox.message_id, sms_outbox.message_id) RETURNS boolean
    LANGUAGE c IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME', 'message_id_le_wrapper';
CREATE FUNCTION sms_outbox.message_id_eq(sms_outbox.message_id, sms_outbox.message_id) RETURNS boolean
    LANGUAGE c IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME', 'message_id_eq_wrapper';
CREATE FUNCTION sms_outbox.message_id_ne(sms_outbox.message_id, sms_outbox.message_id) RETURNS boolean
    LANGUAGE c IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME', 'message_id_ne_wrapper';
CREATE FUNCTION sms_outbox.message_id_ge(sms_outbox.message_id, sms_outbox.message_id) RETURNS boolean
    LANGUAGE c IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME', 'message_id_ge_wrapper';
CREATE FUNCTION sms_outbox.message_id_gt(sms_outbox.message_id, sms_outbox.message_id) RETURNS boolean
    LANGUAGE c IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME', 'message_id_gt_wrapper';
CREATE FUNCTION sms_outbox.message_id_cmp(sms_outbox.message_id, sms_outbox.message_id) RETURNS integer
    LANGUAGE c IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME', 'message_id_cmp_wrapper';
CREATE FUNCTION sms_outbox.message_id_sortsupport(internal) RETURNS void
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'message_id_sortsupport_wrapper';
CREATE FUNCTION sms_outbox.message_id_hash(sms_outbox.message_id) RETURNS integer
    LANGUAGE c IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME', 'message_id_hash_wrapper';
CREATE FUNCTION sms_outbox.message_id_hash(sms_outbox.message_id, bigint) RETURNS bigint
    LANGUAGE c IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME', 'message_id_hash_extended_wrapper';

-- In pg_catalog, so that WHERE id = 'r01…' finds them under every search_path, a caller's as well as the pinned ones here.
CREATE OPERATOR pg_catalog.< (LEFTARG = sms_outbox.message_id, RIGHTARG = sms_outbox.message_id, FUNCTION = sms_outbox.message_id_lt,
    COMMUTATOR = OPERATOR(pg_catalog.>), NEGATOR = OPERATOR(pg_catalog.>=), RESTRICT = scalarltsel, JOIN = scalarltjoinsel);
CREATE OPERATOR pg_catalog.<= (LEFTARG = sms_outbox.message_id, RIGHTARG = sms_outbox.message_id, FUNCTION = sms_outbox.message_id_le,
    COMMUTATOR = OPERATOR(pg_catalog.>=), NEGATOR = OPERATOR(pg_catalog.>), RESTRICT = scalarlesel, JOIN = scalarlejoinsel);
CREATE OPERATOR pg_catalog.= (LEFTARG = sms_outbox.message_id, RIGHTARG = sms_outbox.message_id, FUNCTION = sms_outbox.message_id_eq,
    COMMUTATOR = OPERATOR(pg_catalog.=), NEGATOR = OPERATOR(pg_catalog.<>), RESTRICT = eqsel, JOIN = eqjoinsel, HASHES, MERGES);
CREATE OPERATOR pg_catalog.<> (LEFTARG = sms_outbox.message_id, RIGHTARG = sms_outbox.message_id, FUNCTION = sms_outbox.message_id_ne,
    COMMUTATOR = OPERATOR(pg_catalog.<>), NEGATOR = OPERATOR(pg_catalog.=), RESTRICT = neqsel, JOIN = neqjoinsel);
CREATE OPERATOR pg_catalog.>= (LEFTARG = sms_outbox.message_id, RIGHTARG = sms_outbox.message_id, FUNCTION = sms_outbox.message_id_ge,
    COMMUTATOR = OPERATOR(pg_catalog.<=), NEGATOR = OPERATOR(pg_catalog.<), RESTRICT = scalargesel, JOIN = scalargejoinsel);
CREATE OPERATOR pg_catalog.> (LEFTARG = sms_outbox.message_id, RIGHTARG = sms_outbox.message_id, FUNCTION = sms_outbox.message_id_gt,
    COMMUTATOR = OPERATOR(pg_catalog.<), NEGATOR = OPERATOR(pg_catalog.<=), RESTRICT = scalargtsel, JOIN = scalargtjoinsel);

CREATE OPERATOR CLASS sms_outbox.message_id_ops DEFAULT FOR TYPE sms_outbox.message_id USING btree AS
    OPERATOR 1 pg_catalog.<, OPERATOR 2 pg_catalog.<=, OPERATOR 3 pg_catalog.=, OPERATOR 4 pg_catalog.>=, OPERATOR 5 pg_catalog.>,
    FUNCTION 1 sms_outbox.message_id_cmp(sms_outbox.message_id, sms_outbox.message_id),
    FUNCTION 2 sms_outbox.message_id_sortsupport(internal);
CREATE OPERATOR CLASS sms_outbox.message_id_hash_ops DEFAULT FOR TYPE sms_outbox.message_id USING hash AS
    OPERATOR 1 pg_catalog.=,
    FUNCTION 1 sms_outbox.message_id_hash(sms_outbox.message_id),
    FUNCTION 2 sms_outbox.message_id_hash(sms_outbox.message_id, bigint);

CREATE CAST (uuid AS sms_outbox.message_id) WITHOUT FUNCTION AS ASSIGNMENT;
CREATE CAST (sms_outbox.message_id AS uuid) WITHOUT FUNCTION;
-- Implicit, so that an application's text column joins to the views by index. Leakproof, or row security would first read every
-- message: so it raises no error, in which a hidden row's text could be read, but answers a text that is no id with NULL.
CREATE FUNCTION sms_outbox.message_id(text) RETURNS sms_outbox.message_id
    LANGUAGE c IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME', 'message_id_wrapper';
COMMENT ON FUNCTION sms_outbox.message_id(text) IS 'The id that a text stands for; NULL where it is none.';
CREATE CAST (text AS sms_outbox.message_id) WITH FUNCTION sms_outbox.message_id(text) AS IMPLICIT;
CREATE CAST (sms_outbox.message_id AS text) WITH INOUT AS ASSIGNMENT;
