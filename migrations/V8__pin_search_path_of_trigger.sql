-- The function runs with the rights of the tables' owner. Without a place of its own in the path, a temporary
-- table of a writer would come first, and with it the writer's triggers.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION count_dead_letters() SET search_path = %I, pg_temp', current_schema());
END
$$;
