//! The entries of triggers.

/// In the notation of `notation.rs`.
pub const ENTRIES: &str = "
Trigger: add=TriggerAddParameter patch=TriggerPatchParameter get=TriggerView
  id id : add! get
  bucket TriggerBucket : add get
  exchange TriggerExchange : add get
  schedule TriggerSchedule : add get
  webhook TriggerWebhook : add get
  function TriggerFunction : add patch get
  task TriggerTask : add patch get
  batchSize int(1..100) : add patch get
  batchTime period(PT0S..PT5M) : add patch get
  state word(active|paused) : get
  eTag text : get
  creationTime time : get
  lastModified time : get
  queue text : get
  messagesWaiting long : get
  eventsFired long : get
  eventsRepeated long : get
  eventsFailed long : get
  eventsListed long : get
  lastEventTime time : get
  lastLagMilliseconds long : get
  lastListingTime time : get
  nextRunTime time : get
  lastError TriggerError : get

TriggerBucket:
  name! text(3..63)
  prefix text(1024)
  suffix text(1024)
  minBytes long(0..)
  maxBytes long(0..)
  exchange text(1..255)
  pattern text(255)
  listingInterval period(PT0S..P31D)
  includeExisting flag

TriggerExchange:
  name! text(1..255)
  pattern text(255)
  values texts(1024)

TriggerSchedule:
  expression! text(1..256)
  timeZone text(1..64)

TriggerWebhook:
  secret text(16..256)
  url text
  values texts(1024)

TriggerHooked:
  messageId text

TriggerFunction:
  poolId! id
  id! id

TriggerTask:
  poolId! id
  jobId id
  template! any

TriggerError:
  time! time
  message! text
";
