//! Variables, namespaces, the deployment, the lock and the event stream.

use std::time::Duration;

use githubrunner::{
    http::Request,
    model::Registration,
    nomad::{Acquired, Error, Kept, Nomad, Options, Written, prepare},
};

use crate::place::{ENDS, NAMESPACE, Place, WITHIN, items};

pub async fn writes_a_variable_once(place: Place) {
    let nomad = place.nomad();
    let name = place.name(1);
    assert_eq!(nomad.put_variable(&name, &items("one")).await.unwrap(), Written::Written);
    assert_eq!(nomad.put_variable(&name, &items("two")).await.unwrap(), Written::Exists);
    assert_eq!(nomad.put_variable(&name, &items("one")).await.unwrap(), Written::Written, "a lost answer");
    let view = nomad.observe().await.unwrap();
    let variables: Vec<String> = view.variables.into_iter().map(|variable| variable.name).collect();
    assert_eq!(variables, [name.clone()], "without its job");
    nomad.delete_variable(&name).await.unwrap();
    assert!(nomad.observe().await.unwrap().variables.is_empty());
    assert_eq!(nomad.put_variable(&name, &items("two")).await.unwrap(), Written::Written);
    nomad.delete_variable(&name).await.unwrap();
}

pub async fn tells_a_missing_namespace(place: Place) {
    let options = Options { namespace: "nowhere".into(), ..place.options() };
    let nomad = Nomad::new(options, "i").unwrap();
    let error = nomad.observe().await.unwrap_err();
    assert!(matches!(error, Error::NamespaceMissing { .. }), "{error:?}");
    assert!(error.to_string().contains("nomad namespace apply nowhere"), "{error}");
    assert!(matches!(nomad.deployment().await, Err(Error::NamespaceMissing { .. })));
    assert!(matches!(nomad.check_namespace().await, Err(Error::NamespaceMissing { .. })));
    place.nomad().check_namespace().await.unwrap();
    let job = place.job(&place.nomad(), 1, Registration::Jit, ENDS).await;
    let elsewhere = prepare(
        job.job().clone(),
        nomad.options(),
        place.meta(&place.nomad(), 1, Registration::Jit).await,
        &place.name(1),
        Registration::Jit,
    )
    .unwrap();
    let refused = nomad.register(&elsewhere, None).await;
    assert!(matches!(refused, Err(Error::NamespaceMissing { .. })), "{refused:?}");
}

pub async fn agrees_on_one_deployment(place: Place) {
    let replicas: Vec<Nomad> =
        (0..5).map(|number| Nomad::new(place.options(), format!("i{number}")).unwrap()).collect();
    let racing: Vec<_> = replicas
        .iter()
        .map(|nomad| {
            let nomad = nomad.clone();
            tokio::spawn(async move { nomad.deployment().await.unwrap() })
        })
        .collect();
    let mut agreed = Vec::new();
    for racer in racing {
        agreed.push(racer.await.unwrap());
    }
    assert!(agreed.iter().all(|deployment| *deployment == agreed[0]), "{agreed:?}");
    assert_eq!(replicas[3].observe().await.unwrap().deployment, agreed[0]);
}

pub async fn writes_its_deployment_again(place: Place) {
    let first = place.nomad();
    let deployment = first.deployment().await.unwrap();
    let path = format!("/v1/var/githubrunner/{}/instance?namespace={NAMESPACE}", place.prefix);
    place.send(Request::delete(path)).await;
    assert_eq!(first.observe().await.unwrap().deployment, deployment);
    let restarted = Nomad::new(place.options(), "another").unwrap();
    assert_eq!(restarted.deployment().await.unwrap(), deployment, "it was written again");
}

pub async fn one_holds_the_lock(place: Place) {
    let (ttl, delay, deadline) = (Duration::from_secs(10), Duration::from_secs(1), Duration::from_secs(10));
    let (one, two) = (place.nomad(), place.nomad());
    assert_eq!(one.lock_holder().await.unwrap(), None);
    let first = one.lock_acquire("one", ttl, delay, deadline).await.unwrap();
    let Acquired::Ours(lease) = first else { panic!("{first:?}") };
    assert_eq!(two.lock_acquire("two", ttl, delay, deadline).await.unwrap(), Acquired::Held);
    assert_eq!(two.lock_holder().await.unwrap().as_deref(), Some("one"));
    assert_eq!(one.lock_renew(&lease, deadline).await.unwrap(), Kept::Kept);
    assert_eq!(one.lock_release(&lease, deadline).await.unwrap(), Kept::Kept);
    let second = two.lock_acquire("two", ttl, delay, deadline).await.unwrap();
    let Acquired::Ours(other) = second else { panic!("{second:?}") };
    assert_eq!(one.lock_renew(&lease, deadline).await.unwrap(), Kept::Lost);
    assert_eq!(one.lock_holder().await.unwrap().as_deref(), Some("two"));
    assert_eq!(two.lock_release(&other, deadline).await.unwrap(), Kept::Kept);
    assert_eq!(two.lock_renew(&other, deadline).await.unwrap(), Kept::Lost);
    let bad = one.lock_acquire("one", Duration::from_secs(1), delay, deadline).await;
    assert!(matches!(bad, Err(Error::Refused(_))), "{bad:?}");
}

pub async fn hears_of_what_changes(place: Place) {
    let nomad = place.nomad();
    let mut events = nomad.events().await.unwrap();
    let name = place.start(&nomad, 1, ENDS).await;
    let mut about = Vec::new();
    // Registering, placing, running and ending cause more than two changes.
    while about.len() < 3 {
        let hint = tokio::time::timeout(WITHIN, events.next()).await.unwrap().unwrap();
        about.extend(hint.unwrap().jobs);
    }
    assert!(about.iter().all(|job| *job == name), "{about:?}");
}
