//! Schema entries of pools and of the operations on their size.

/// In the notation of `notation.rs`.
pub const ENTRIES: &str = "
CloudPool: add=PoolAddParameter part=PoolSpecification patch=PoolPatchParameter put=PoolUpdatePropertiesParameter get
  id id : add! get! filter(Id)
  displayName text(1024) : add patch get | label
  url text : get
  eTag text : get
  lastModified time : get filter(ModifiedAt)
  creationTime time : get filter(CreatedAt)
  state word(active|deleting) : get filter(State)
  stateTransitionTime time : get filter(StateAt)
  allocationState word(steady|resizing|stopping) : get filter(Allocation)
  allocationStateTransitionTime time : get filter(AllocationAt)
  vmSize text(1..256) : add! patch-empty get filter(VmSize) | ignored: a node is what its provider makes
  cloudServiceConfiguration object : add select until(2025-06-01) excludes(virtualMachineConfiguration) | refused: Cloud services are retired; give a virtualMachineConfiguration.
  virtualMachineConfiguration VirtualMachineConfiguration : add! patch-empty get
  resizeTimeout period(PT5M..) : add get
  resizeErrors [NamedError] : get
  currentDedicatedNodes int : get
  currentLowPriorityNodes int : get
  targetDedicatedNodes int(0..100000) : add get
  targetLowPriorityNodes int(0..100000) : add get
  enableAutoScale flag : add get filter(Scales)
  autoScaleFormula formula : add get
  autoScaleEvaluationInterval period(PT5M..P7D) : add get
  autoScaleRun AutoScaleRun : get
  enableInterNodeCommunication flag : add patch-empty get filter(InterNode) | ignored: nodes reach each other as their machines do
  networkConfiguration NetworkConfiguration : add patch-empty get
  startTask StartTask : add patch put get
  certificateReferences [CertificateReference] : add patch put select until(2025-06-01) | refused: Certificates are retired.
  applicationPackageReferences [ApplicationPackageReference](..10) : add patch put! get
  applicationLicenses [text] : add patch select until(2025-06-01) | refused: There are no licences to rent here.
  taskSlotsPerNode int(1..256) : add patch-empty get since(2020-09-01)
  maxTasksPerNode int(1..256) : add patch-empty until(2020-09-01)
  taskSchedulingPolicy TaskSchedulingPolicy : add patch-empty get
  userAccounts [UserAccount](..100) : add patch-empty select | read, refused: Tasks run as the agent's user.
  metadata [MetadataItem] : add patch put! get | label
  stats PoolStatistics : get
  mountConfiguration [MountConfiguration](..10) : add patch-empty select | read, refused: Mount file systems on the machine itself.
  identity object : add patch select | refused: Nodes use the configured blob store's credentials.
  targetNodeCommunicationMode word(default|classic|simplified) : add patch put get since(2022-10-01) until(2025-06-01) | ignored: nodes talk to the broker and to the blob store alone
  currentNodeCommunicationMode word(default|classic|simplified) : get since(2022-10-01) until(2025-06-01)
  upgradePolicy UpgradePolicy : add patch-empty get since(2024-02-01)
  resourceTags texts(256) : add patch-empty get since(2023-11-01) until(2025-06-01) | ignored: no resource of a cloud is made from here

PoolResizeParameter:
  targetDedicatedNodes int(0..100000)
  targetLowPriorityNodes int(0..100000)
  resizeTimeout period(PT5M..)
  nodeDeallocationOption word(requeue|terminate|taskcompletion|retaineddata)

NodeRemoveParameter:
  nodeList! [id](1..100)
  resizeTimeout period(PT5M..)
  nodeDeallocationOption word(requeue|terminate|taskcompletion|retaineddata)

PoolEnableAutoScaleParameter:
  autoScaleFormula formula
  autoScaleEvaluationInterval period(PT5M..P7D)

PoolEvaluateAutoScaleParameter:
  autoScaleFormula! formula

QueuePolicy:
  minNodes int(0..100000)
  maxNodes! int(0..100000)
  reactMs long(0..604800000)
  idleMs long(0..604800000)
  deallocation word(requeue|terminate|taskcompletion|retaineddata)

TaskSchedulingPolicy:
  nodeFillType! word(spread|pack)
  jobDefaultOrder word(none|creationtime) : since(2025-06-01)

StartTask:
  commandLine! text(1..131071)
  containerSettings TaskContainerSettings | refused: Containers are not served yet.
  resourceFiles [ResourceFile]
  environmentSettings [EnvironmentSetting]
  userIdentity UserIdentity
  maxTaskRetryCount int(-1..)
  waitForSuccess flag

NetworkConfiguration:
  subnetId text(4096) | checked, refused: Nodes use the network of the machine they run on.
  dynamicVNetAssignmentScope word(none|job)
  endpointConfiguration PoolEndpointConfiguration | read, refused: A node's ports are reached at its own address; see the node's ipAddress.
  publicIPAddressConfiguration PublicIPAddressConfiguration
  enableAcceleratedNetworking flag : since(2023-05-01) | ignored: a node is what its provider makes

PublicIPAddressConfiguration:
  provision word(batchmanaged|usermanaged|nopublicipaddresses) | ignored: nodes keep the addresses of their machines
  ipAddressIds [text](..100) | checked, refused: Nodes keep the addresses of the machines they run on.

PoolEndpointConfiguration:
  inboundNATPools [InboundNATPool](..5)

InboundNATPool:
  name! text(1..77)
  protocol! word(tcp|udp)
  backendPort! int(1..65535)
  frontendPortRangeStart! int(1..65534)
  frontendPortRangeEnd! int(1..65534)
  networkSecurityGroupRules [NetworkSecurityGroupRule](..25)

NetworkSecurityGroupRule:
  priority! int(150..4096)
  access! word(allow|deny)
  sourceAddressPrefix! text(1..256)
  sourcePortRanges [text](..25)

UserAccount:
  name! text(1..20)
  password! text(1..256)
  elevationLevel word(nonadmin|admin)
  linuxUserConfiguration LinuxUserConfiguration
  windowsUserConfiguration WindowsUserConfiguration

LinuxUserConfiguration:
  uid long(0..4294967295)
  gid long(0..4294967295)
  sshPrivateKey text(32768)

WindowsUserConfiguration:
  loginMode word(batch|interactive)

MountConfiguration:
  azureBlobFileSystemConfiguration AzureBlobFileSystemConfiguration
  nfsMountConfiguration NFSMountConfiguration : excludes(azureBlobFileSystemConfiguration)
  cifsMountConfiguration CIFSMountConfiguration : excludes(azureBlobFileSystemConfiguration,nfsMountConfiguration)
  azureFileShareConfiguration AzureFileShareConfiguration : excludes(azureBlobFileSystemConfiguration,nfsMountConfiguration,cifsMountConfiguration)

AzureBlobFileSystemConfiguration:
  accountName! text(1..4096)
  containerName! text(1..4096)
  relativeMountPath! text(1..4096)
  accountKey text(32768)
  sasKey text(32768) : excludes(accountKey)
  identityReference NodeIdentity : excludes(accountKey,sasKey)
  blobfuseOptions text(4096)

NFSMountConfiguration:
  source! text(1..4096)
  relativeMountPath! text(1..4096)
  mountOptions text(4096)

CIFSMountConfiguration:
  username! text(1..4096)
  source! text(1..4096)
  password! text(1..4096)
  relativeMountPath! text(1..4096)
  mountOptions text(4096)

AzureFileShareConfiguration:
  accountName! text(1..4096)
  azureFileUrl! text(1..4096)
  accountKey! text(1..4096)
  relativeMountPath! text(1..4096)
  mountOptions text(4096)

UpgradePolicy:
  mode! word(automatic|manual|rolling)
  automaticOSUpgradePolicy AutomaticOSUpgradePolicy
  rollingUpgradePolicy RollingUpgradePolicy | ignored: systems are not upgraded from here

AutomaticOSUpgradePolicy:
  disableAutomaticRollback flag | ignored: systems are not upgraded from here
  enableAutomaticOSUpgrade flag | checked, refused: Upgrade the machine's system itself, or give mode manual.
  useRollingUpgradePolicy flag | ignored: systems are not upgraded from here
  osRollingUpgradeDeferral flag | ignored: systems are not upgraded from here

RollingUpgradePolicy:
  enableCrossZoneUpgrade flag
  maxBatchInstancePercent int(5..100)
  maxUnhealthyInstancePercent int(5..100)
  maxUnhealthyUpgradedInstancePercent int(0..100)
  pauseTimeBetweenBatches period
  prioritizeUnhealthyInstances flag
  rollbackFailedInstancesOnPolicyBreach flag

CertificateReference:
  thumbprint! text
  thumbprintAlgorithm! text
  storeLocation text
  storeName text
  visibility [text]

AutoScaleRun:
  timestamp! time
  results text
  error NamedError

NamedError:
  code text
  message text
  values [NameValuePair]

NameValuePair:
  name text
  value text

PoolStatistics:
  url! text
  startTime! time
  lastUpdateTime! time
  usageStats UsageStatistics
  resourceStats ResourceStatistics

UsageStatistics:
  startTime! time
  lastUpdateTime! time
  dedicatedCoreTime! period

ResourceStatistics:
  startTime! time
  lastUpdateTime! time
  avgCPUPercentage! float
  avgMemoryGiB! float
  peakMemoryGiB! float
  avgDiskGiB! float
  peakDiskGiB! float
  diskReadIOps! long
  diskWriteIOps! long
  diskReadGiB! float
  diskWriteGiB! float
  networkReadGiB! float
  networkWriteGiB! float

PoolUsageMetrics:
  poolId! id : filter(Id)
  startTime! time
  endTime! time
  vmSize! text
  totalCoreHours! float

PoolView:
  id! text
  state text
  allocationState text
  policy QueuePolicy
  decision text
  targetNodes int
  currentNodes int
  slotsPerNode int
  nodes object
  waiting object
  running object
  lastModified time
";
