//! Lifecycle configuration of buckets: put, get, delete. Rules that this server cannot apply are refused when they are set.
//! Called by the S3 trait; rules are in the crate's `lifecycle.rs`.

use std::collections::HashSet;

use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::Service;
use super::refuse::unsupported;
use crate::configurations::{self, Kind};
use crate::events::iso_of;
use crate::files::fresh_id;
use crate::lifecycle::{Expiration, Lifecycle, Rule};
use crate::objects::bucket_id;

const RULES_MAX: usize = 1000;
const ID_CHARS_MAX: usize = 255;

impl Service {
    pub(super) async fn set_lifecycle(
        &self,
        request: S3Request<PutBucketLifecycleConfigurationInput>,
    ) -> S3Result<S3Response<PutBucketLifecycleConfigurationOutput>> {
        let input = request.input;
        let given = input.lifecycle_configuration.map(|configuration| configuration.rules).unwrap_or_default();
        if given.is_empty() || given.len() > RULES_MAX {
            return Err(s3_error!(MalformedXML, "Name between 1 and {RULES_MAX} rules."));
        }
        let rules: S3Result<Vec<_>> = given.into_iter().map(rule).collect();
        let lifecycle = Lifecycle { rules: rules? };
        let mut ids = HashSet::new();
        if !lifecycle.rules.iter().all(|rule| ids.insert(&rule.id)) {
            return Err(s3_error!(InvalidArgument, "Rule ID must be unique. Found same ID for more than one rule"));
        }
        self.writer
            .run(move |connection, _| {
                let bucket = bucket_id(connection, &input.bucket)?;
                configurations::write(connection, bucket, Kind::Lifecycle, &lifecycle)
            })
            .await?;
        Ok(S3Response::new(PutBucketLifecycleConfigurationOutput::default()))
    }

    pub(super) async fn lifecycle(
        &self,
        request: S3Request<GetBucketLifecycleConfigurationInput>,
    ) -> S3Result<S3Response<GetBucketLifecycleConfigurationOutput>> {
        let name = request.input.bucket;
        let found = self
            .readers
            .run(move |connection| {
                let bucket = bucket_id(connection, &name)?;
                configurations::read::<Lifecycle>(connection, bucket, Kind::Lifecycle)
            })
            .await?;
        let Some(lifecycle) = found else {
            return Err(s3_error!(NoSuchLifecycleConfiguration, "The lifecycle configuration does not exist"));
        };
        let rules = lifecycle.rules.into_iter().map(shown).collect();
        Ok(S3Response::new(GetBucketLifecycleConfigurationOutput { rules: Some(rules), ..Default::default() }))
    }

    pub(super) async fn remove_lifecycle(
        &self,
        request: S3Request<DeleteBucketLifecycleInput>,
    ) -> S3Result<S3Response<DeleteBucketLifecycleOutput>> {
        let name = request.input.bucket;
        self.writer
            .run(move |connection, _| {
                let bucket = bucket_id(connection, &name)?;
                configurations::remove(connection, bucket, Kind::Lifecycle)
            })
            .await?;
        Ok(S3Response::new(DeleteBucketLifecycleOutput::default()))
    }
}

fn rule(given: LifecycleRule) -> S3Result<Rule> {
    unsupported(given.transitions.is_some_and(|list| !list.is_empty()), "A transition to another storage class")?;
    let is_about_versions = given.noncurrent_version_expiration.is_some()
        || given.noncurrent_version_transitions.is_some_and(|list| !list.is_empty())
        || given.expiration.as_ref().is_some_and(|expiration| expiration.expired_object_delete_marker.is_some());
    unsupported(is_about_versions, "A lifecycle rule about versions")?;
    let is_filter = given.filter.is_some();
    let prefix = match (given.filter, given.prefix) {
        (None, Some(prefix)) => prefix,
        (Some(filter), None) => {
            let is_other = filter.and.is_some()
                || filter.tag.is_some()
                || filter.object_size_greater_than.is_some()
                || filter.object_size_less_than.is_some();
            unsupported(is_other, "A lifecycle filter other than by prefix")?;
            filter.prefix.unwrap_or_default()
        }
        _ => return Err(s3_error!(MalformedXML, "A rule has either a Filter or a Prefix.")),
    };
    let is_enabled = match given.status.as_str() {
        ExpirationStatus::ENABLED => true,
        ExpirationStatus::DISABLED => false,
        _ => return Err(s3_error!(MalformedXML, "The status of a rule is Enabled or Disabled.")),
    };
    let expiration = given.expiration.map(expiration).transpose()?;
    let abort_days = match given.abort_incomplete_multipart_upload {
        None => None,
        Some(abort) => Some(positive(abort.days_after_initiation, "DaysAfterInitiation")?),
    };
    if expiration.is_none() && abort_days.is_none() {
        return Err(s3_error!(InvalidRequest, "At least one action needs to be specified in a rule."));
    }
    let id = given.id.filter(|id| !id.is_empty()).unwrap_or_else(fresh_id);
    if id.chars().count() > ID_CHARS_MAX {
        return Err(s3_error!(InvalidArgument, "ID length should not exceed allowed limit of {ID_CHARS_MAX}"));
    }
    Ok(Rule { id, is_enabled, prefix, is_filter, expiration, abort_days })
}

fn expiration(given: LifecycleExpiration) -> S3Result<Expiration> {
    match (given.days, given.date) {
        (days @ Some(_), None) => Ok(Expiration::Days(positive(days, "Days")?)),
        (None, Some(date)) if iso_of(&date).ends_with("T00:00:00.000Z") => Ok(Expiration::Date(date)),
        (None, Some(_)) => Err(s3_error!(InvalidArgument, "'Date' must be at midnight GMT")),
        _ => Err(s3_error!(MalformedXML, "An expiration has either Days or a Date.")),
    }
}

fn positive(days: Option<i32>, name: &str) -> S3Result<i32> {
    days.filter(|days| *days > 0).ok_or_else(|| s3_error!(InvalidArgument, "'{name}' must be a positive integer"))
}

fn shown(rule: Rule) -> LifecycleRule {
    let status = if rule.is_enabled { ExpirationStatus::ENABLED } else { ExpirationStatus::DISABLED };
    let (days, date) = match rule.expiration {
        Some(Expiration::Days(days)) => (Some(days), None),
        Some(Expiration::Date(date)) => (None, Some(date)),
        None => (None, None),
    };
    let has_expiration = days.is_some() || date.is_some();
    LifecycleRule {
        abort_incomplete_multipart_upload: rule.abort_days.map(|days| AbortIncompleteMultipartUpload { days_after_initiation: Some(days) }),
        expiration: has_expiration.then_some(LifecycleExpiration { date, days, expired_object_delete_marker: None }),
        filter: rule.is_filter.then(|| LifecycleRuleFilter { prefix: Some(rule.prefix.clone()), ..Default::default() }),
        prefix: (!rule.is_filter).then_some(rule.prefix),
        id: Some(rule.id),
        status: ExpirationStatus::from_static(status),
        noncurrent_version_expiration: None,
        noncurrent_version_transitions: None,
        transitions: None,
    }
}
