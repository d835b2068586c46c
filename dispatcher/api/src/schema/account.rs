//! Schema entries of errors, images, applications, files and queues.

/// In the notation of `notation.rs`.
pub const ENTRIES: &str = "
BatchError:
  code! text
  message! ErrorMessage
  values [BatchErrorDetail]

ErrorMessage:
  lang text
  value! text

BatchErrorDetail:
  key! text
  value! text

ImageInformation:
  nodeAgentSKUId! text
  imageReference! ImageReference
  osType! word(linux|windows)
  capabilities [text]
  batchSupportEndOfLife time
  verificationType! word(verified|unverified)

NodeAgentSku:
  id! text
  verifiedImageReferences! [ImageReference]
  osType! word(linux|windows)

CertificateAddParameter:
  thumbprint! text(1..1024)
  thumbprintAlgorithm! text(1..1024)
  data! text(1..1048576)
  certificateFormat word(pfx|cer)
  password text

Certificate:
  thumbprint text
  thumbprintAlgorithm text
  url text
  state word(active|deleting|deletefailed) : filter(State)
  stateTransitionTime time : filter(StateAt)
  previousState text
  previousStateTransitionTime time
  publicData text
  deleteCertificateError object

ApplicationSummary:
  id! text
  displayName! text
  versions! [text]

ApplicationParameter:
  displayName text(1024)
  allowUpdates flag
  defaultVersion version

PackageActivateParameter:
  format word(zip)
  isDefault flag

ApplicationView:
  id! text
  displayName text
  allowUpdates! flag
  defaultVersion text
  eTag text
  creationTime time
  lastModified time
  versions [PackageView]

PackageView:
  version! text
  state! word(pending|active)
  format text
  bytes long
  lastActivationTime time
  uploadUrl text
  uploadUrlExpiry time

NodeFile:
  name text
  url text
  isDirectory flag
  properties FileProperties

FileProperties:
  creationTime time
  lastModified! time
  contentLength! long
  contentType text
  fileMode text

Health:
  status text

QueueView:
  name! text
  role! word(tasks|wideTasks|events|dead|internal)
  poolId text
  exists flag
  messages int
  consumers int

MessageView:
  position! int
  exchange text
  routingKey text
  redelivered flag
  messageId text
  contentType text
  replyTo text
  correlationId text
  priority int
  expiration text
  bytes long
  body any
  bodyBase64 text

PurgeResult:
  purged! int

DeadLetter:
  id! text
  kind! word(submission|function|other)
  reason text
  message text
  time time
  poolId text
  function text
  messageId text
  correlationId text
  replyTo text
  exchange text
  routingKey text
  contentType text
  priority int
  expiration text
  failedAttempts int
  bytes! long
  headers any
  body any
  bodyBase64 text

DeadLetters:
  value! [DeadLetter]
  looked! int
  left! int

DeadLettersReplayed:
  replayed! int
  unreplayed! [DeadLetterUnreplayed]
  unreplayedCount! int
  looked! int
  left! int

DeadLetterUnreplayed:
  id! text
  reason! text

DeadLettersDiscarded:
  discarded! int
  looked! int
  left! int

PublisherParameter:
  name! text(1..64)
  poolId! id
  submit flag
  functions [text(1..64)](0..24)

PublisherView:
  name! text
  poolId! text
  submit! flag
  functions [text]
  answers text
  url text
  commands [text]

PublisherRemoved:
  commands [text]

UnreadableView:
  table! text
  row! text
  column! text
  advice! text
";
