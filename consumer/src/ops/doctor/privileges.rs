//! What the workers' role may do.

use tokio_postgres::types::Type;

use super::{
    check::{Outcome, Verdict},
    patient::Patient,
};

/// What a worker cannot be without, as docs/configuration.md grants it.
const NEEDED: &[(&str, &[&str])] = &[
    ("passerby_schema_history", &["SELECT"]),
    ("detections", &["SELECT", "INSERT"]),
    ("ledger", &["SELECT", "INSERT"]),
    ("tracks", &["SELECT", "INSERT", "UPDATE"]),
    ("sessions", &["SELECT", "INSERT", "UPDATE"]),
    ("session_sources", &["SELECT", "INSERT", "UPDATE"]),
    ("dead_letters", &["SELECT", "INSERT", "UPDATE"]),
    ("books", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    (
        "dead_letter_counts",
        &["SELECT", "INSERT", "UPDATE", "DELETE"],
    ),
    ("ledger_horizon", &["SELECT"]),
];

/// What upkeep needs besides, and can be left to the owner.
const UPKEEP: &[(&str, &[&str])] = &[
    ("ledger", &["DELETE"]),
    ("ledger_horizon", &["INSERT", "UPDATE"]),
];

const MISSING: &str = "
SELECT wanted.name, wanted.privilege
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS wanted (name, privilege, n)
WHERE to_regclass(wanted.name) IS NOT NULL
  AND NOT has_table_privilege($3, to_regclass(wanted.name), wanted.privilege)
ORDER BY n";

pub(super) async fn privileges(patient: &Patient<'_>) -> Outcome {
    let postgres = patient.postgres()?;
    postgres.has_schema().await?;
    let role = postgres.role(patient.config.role.as_deref()).await?;
    let missing = async |wanted: &[(&str, &[&str])]| {
        let pairs = wanted
            .iter()
            .flat_map(|(table, privileges)| privileges.iter().map(move |p| (*table, *p)));
        let (tables, privileges): (Vec<&str>, Vec<&str>) = pairs.unzip();
        let rows = postgres
            .query(
                MISSING,
                &[
                    (&tables, Type::TEXT_ARRAY),
                    (&privileges, Type::TEXT_ARRAY),
                    (&role, Type::TEXT),
                ],
            )
            .await?;
        let missing = rows.iter().map(|row| (row.get(0), row.get(1)));
        Ok::<Vec<(String, String)>, super::check::Unknown>(missing.collect())
    };
    let grants = |missing: &[(String, String)]| {
        let mut grants: Vec<(&str, Vec<&str>)> = Vec::new();
        for (table, privilege) in missing {
            match grants.iter_mut().find(|(name, _)| name == table) {
                Some((_, privileges)) => privileges.push(privilege),
                None => grants.push((table, vec![privilege])),
            }
        }
        let grants = grants.iter().map(|(table, privileges)| {
            format!("GRANT {} ON {table} TO {role}", privileges.join(", "))
        });
        grants.collect::<Vec<_>>().join("; ")
    };
    let list = |missing: &[(String, String)]| {
        let list = missing
            .iter()
            .map(|(table, privilege)| format!("{privilege} on {table}"));
        list.collect::<Vec<_>>().join(", ")
    };
    let needed = missing(NEEDED).await?;
    if !needed.is_empty() {
        return Ok(Verdict::problem(
            format!("{role} may not {}", list(&needed)),
            grants(&needed),
        ));
    }
    let upkeep = missing(UPKEEP).await?;
    if !upkeep.is_empty() {
        return Ok(
            Verdict::warning(format!("{role} may not {}", list(&upkeep)), grants(&upkeep))
                .because("the ledger is not pruned, and grows"),
        );
    }
    let owner = postgres
        .one(
            "SELECT pg_has_role($1, relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass('detections')",
            &[(&role, Type::TEXT)],
        )
        .await?;
    Ok(if owner.get(0) {
        Verdict::ok(format!("{role} owns the tables"))
    } else {
        Verdict::ok(format!(
            "{role} may do what a worker does; partitions and migrations are made by the owner"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The privileges of each table that a text grants.
    fn granted(doc: &str) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for line in doc.lines().filter_map(|line| line.strip_prefix("GRANT ")) {
            let (privileges, rest) = line.split_once(" ON ").unwrap();
            let (tables, _) = rest.split_once(" TO ").unwrap();
            for table in tables.split(", ") {
                for privilege in privileges.split(", ") {
                    found.push((table.to_owned(), privilege.to_owned()));
                }
            }
        }
        found.sort();
        found
    }

    #[test]
    fn what_is_needed_is_what_the_documentation_grants() {
        let mut needed: Vec<(String, String)> = NEEDED
            .iter()
            .flat_map(|(table, ps)| {
                ps.iter()
                    .map(move |p| ((*table).to_owned(), (*p).to_owned()))
            })
            .collect();
        needed.sort();
        let doc = include_str!("../../../../docs/configuration.md");
        assert_eq!(granted(doc), needed);
    }
}
