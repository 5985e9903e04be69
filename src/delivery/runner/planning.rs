//! The task that plans a message: reads it, decides its parts, writes them down.

use super::{Finished, SPOOL_TROUBLE};
use crate::delivery::attempt::Context;
use crate::delivery::plan::Planner;
use crate::mail::QueueId;
use crate::spool::{Lane, StoreError};

/// Plans a message; if the spool fails, it stays unplanned and is planned later.
pub(super) async fn plan(context: &Context, planner: Planner, id: QueueId) -> Finished {
    match try_plan(context, planner, id).await {
        Ok(lanes) => Finished {
            lanes,
            ..Finished::default()
        },
        Err(error) => {
            tracing::error!(%id, %error, "planning was put off, because the spool fails");
            tokio::time::sleep(SPOOL_TROUBLE).await;
            Finished {
                unplanned: true,
                ..Finished::default()
            }
        }
    }
}

/// Answers the lanes that its parts wait in.
async fn try_plan(context: &Context, planner: Planner, id: QueueId) -> Result<Vec<Lane>, StoreError> {
    let now = context.clock.now();
    let (outline, plan) = match context.store.message(id).await {
        Ok((message, body)) => {
            let planning = move || {
                let outline = planner.plan(&message, &body)?;
                let plan = outline.plan(Some(&message), now);
                Ok::<_, StoreError>((outline, plan))
            };
            match tokio::task::spawn_blocking(planning).await {
                Ok(planned) => planned?,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => return Err(StoreError::Closing),
            }
        }
        Err(error) if error.is_lasting() => {
            let outline = planner.unreadable(&error.to_string());
            let plan = outline.plan(None, now);
            (outline, plan)
        }
        Err(error) => return Err(error),
    };
    let lanes = plan.parts.iter().map(|part| Lane {
        account: part.account.clone(),
        mailbox: part.mailbox.to_string(),
    });
    let lanes = lanes.collect();
    context.store.plan(id, plan).await?;
    for (number, planned) in (0u32..).zip(outline.parts) {
        let part = planned.part;
        context.maillog.planned(
            id,
            number,
            &part.account,
            &part.mailbox,
            part.recipients.len(),
            &planned.summary,
        );
    }
    Ok(lanes)
}
