//! The entries of functions.

/// In the notation of `notation.rs`.
pub const ENTRIES: &str = "
Function: add=FunctionAddParameter patch=FunctionPatchParameter get=FunctionView
  id id : add! get
  poolId text : get
  version int(1..2147483647) : patch get
  runtime word(lambda|lines|exec|http) : add! patch get
  handler text(1..1024) : add patch get
  commandLine text(1..8192) : add patch get
  package text(64..64) : add patch get
  memoryMiB int(16..1048576) : add patch get
  timeout period(PT0.1S..PT12H) : add patch get
  concurrencyPerNode int(1..10000) : add patch get
  environmentSettings [EnvironmentSetting](0..200) : add patch get
  warmInstances int(0..1000) : add patch get
  maxRetryCount int(0..20) : add patch get
  idleTime period(PT1S..P1D) : add patch get
  eTag text : get
  creationTime time : get
  lastModified time : get
  versions [FunctionVersionView] : get

FunctionVersionView:
  version! int
  creationTime time
  runtime word(lambda|lines|exec|http)
  handler text
  commandLine text
  package text

InvocationView:
  messageId! text

FunctionPackageView:
  sha256! text
  state! word(pending|active)
  bytes long
  uploadUrl text
  uploadUrlExpiry time
";
