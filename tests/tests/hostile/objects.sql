-- What somebody may leave in schema public, who may create there, before the extension is installed or while it is used: a
-- function, operator, type or relation for every name that SQL without a schema could mean. Each tells when it is used.
SET search_path = pg_catalog;
SET check_function_bodies = off;

CREATE FUNCTION public.trap(what text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RAISE LOG 'hostile object used: %', what;
    RAISE EXCEPTION 'hostile object used: %', what;
END
$$;

CREATE PROCEDURE public.make(statement text) LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    EXECUTE statement;
EXCEPTION WHEN OTHERS THEN
    NULL; -- a signature that PL/pgSQL cannot have
END
$$;

DO $$
DECLARE
    plain CONSTANT text[] := '{text,varchar,name,bpchar,int2,int4,int8,numeric,float8,timestamptz,date,jsonb,oid,bool}';
    made record;
BEGIN
    -- The same names, as they are and for arguments that fit even better than the real ones.
    FOR made IN
        SELECT p.proname, pg_get_function_identity_arguments(p.oid) AS arguments, format_type(p.prorettype, NULL) AS result
          FROM pg_proc AS p WHERE p.pronamespace = 'pg_catalog'::regnamespace
    LOOP
        CALL public.make(format('CREATE FUNCTION public.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L', made.proname, made.arguments,
             CASE WHEN made.result IN ('record', '"any"', 'internal') THEN 'text' ELSE made.result END,
             format('BEGIN PERFORM public.trap(%L); END', made.proname)));
    END LOOP;
    FOR made IN SELECT DISTINCT p.proname FROM pg_proc AS p WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.pronargs BETWEEN 1 AND 2 LOOP
        CALL public.make(format('CREATE FUNCTION public.%I(varchar) RETURNS text LANGUAGE plpgsql AS %L', made.proname,
             format('BEGIN PERFORM public.trap(%L); END', made.proname)));
        CALL public.make(format('CREATE FUNCTION public.%I(varchar, varchar) RETURNS text LANGUAGE plpgsql AS %L', made.proname,
             format('BEGIN PERFORM public.trap(%L); END', made.proname)));
    END LOOP;
    FOR made IN
        SELECT o.oprname, format_type(o.oprleft, NULL) AS l, format_type(o.oprright, NULL) AS r, format_type(o.oprresult, NULL) AS result
          FROM pg_operator AS o WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprleft <> 0
        UNION
        SELECT o.oprname, l, r, 'boolean'
          FROM unnest('{=,<>,<,>,<=,>=,+,-,*,/,||,->,->>,?,~,!~,~~,@>,<@,&&}'::text[]) AS o (oprname), unnest(plain) AS l, unnest(plain) AS r
    LOOP
        CALL public.make(format('CREATE FUNCTION public.operate(%s, %s) RETURNS %s LANGUAGE plpgsql AS %L', made.l, made.r, made.result,
             'BEGIN PERFORM public.trap(''operator''); END'));
        CALL public.make(format('CREATE OPERATOR public.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = public.operate)', made.oprname, made.l, made.r));
    END LOOP;
    -- Relations named like ours and like the catalog's.
    FOR made IN
        SELECT c.relname FROM pg_class AS c WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relkind IN ('r', 'v')
        UNION
        SELECT unnest('{message,attempt,ready,scheduled,lease,ended,organization,organization_app,app_health,worker,role_binding,api_key,
                        provider,idempotency,tally,app_tally,maintenance,outbox,attempts,app_state,queue_stats,health,app_stats}'::text[])
    LOOP
        CALL public.make(format('CREATE VIEW public.%I AS SELECT public.trap(%L) AS organization_id', made.relname, made.relname));
    END LOOP;
    -- Types last: from here on nothing of the above could be made. A cast to one is to a domain that tells.
    FOR made IN SELECT t.typname FROM pg_type AS t WHERE t.typnamespace = 'pg_catalog'::regnamespace AND t.typtype = 'b' AND t.typelem = 0 LOOP
        CALL public.make(format('CREATE DOMAIN public.%I AS pg_catalog.%I CHECK (public.trap(%L))', made.typname, made.typname, 'type ' || made.typname));
    END LOOP;
    FOR made IN SELECT unnest('{dispatch_status,attempt_status,delivery_status,message_id,concluded}'::text[]) AS typname LOOP
        CALL public.make(format('CREATE DOMAIN public.%I AS text CHECK (public.trap(%L))', made.typname, 'type ' || made.typname));
    END LOOP;
END
$$;

-- What casts by itself to and from text is chosen where nothing fits exactly.
CREATE TYPE public.mood AS ENUM ('hostile');
CREATE FUNCTION public.moody(text) RETURNS public.mood LANGUAGE plpgsql AS $$BEGIN PERFORM public.trap('cast'); END$$;
CREATE FUNCTION public.moodless(public.mood) RETURNS text LANGUAGE plpgsql AS $$BEGIN PERFORM public.trap('cast'); END$$;
CREATE CAST (text AS public.mood) WITH FUNCTION public.moody(text) AS IMPLICIT;
CREATE CAST (public.mood AS text) WITH FUNCTION public.moodless(public.mood) AS IMPLICIT;
