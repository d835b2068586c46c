//! The shapes of what clients send, in the notation; names and spellings are Azure Batch's.

/// Every shape of a request, and the shapes inside it.
pub const BODIES: &[(&str, &str)] = &[
    (
        "PoolAddParameter",
        "id! id; displayName text(1024); vmSize! text(256); virtualMachineConfiguration! VirtualMachineConfiguration; \
         resizeTimeout period; targetDedicatedNodes int(0..100000); targetLowPriorityNodes int(0..100000); enableAutoScale flag; \
         autoScaleFormula text(8192); autoScaleEvaluationInterval period; enableInterNodeCommunication flag; \
         networkConfiguration NetworkConfiguration; startTask StartTask; certificateReferences [CertificateReference]; \
         applicationPackageReferences [ApplicationPackageReference]; applicationLicenses [text]; taskSlotsPerNode int(1..256); \
         taskSchedulingPolicy TaskSchedulingPolicy; userAccounts [UserAccount]; metadata [MetadataItem]; \
         mountConfiguration [MountConfiguration]; targetNodeCommunicationMode word(default|classic|simplified); \
         upgradePolicy UpgradePolicy; resourceTags texts",
    ),
    (
        "PoolPatchParameter",
        "displayName text(1024); vmSize text(256); virtualMachineConfiguration VirtualMachineConfiguration; \
         enableInterNodeCommunication flag; networkConfiguration NetworkConfiguration; startTask StartTask; \
         certificateReferences [CertificateReference]; applicationPackageReferences [ApplicationPackageReference]; \
         taskSlotsPerNode int(1..256); taskSchedulingPolicy TaskSchedulingPolicy; userAccounts [UserAccount]; \
         metadata [MetadataItem]; mountConfiguration [MountConfiguration]; \
         targetNodeCommunicationMode word(default|classic|simplified); upgradePolicy UpgradePolicy",
    ),
    (
        "PoolUpdatePropertiesParameter",
        "startTask StartTask; certificateReferences [CertificateReference]; \
         applicationPackageReferences! [ApplicationPackageReference]; metadata! [MetadataItem]; \
         targetNodeCommunicationMode word(default|classic|simplified)",
    ),
    (
        "PoolResizeParameter",
        "targetDedicatedNodes int(0..100000); targetLowPriorityNodes int(0..100000); resizeTimeout period; \
         nodeDeallocationOption word(requeue|terminate|taskcompletion|retaineddata)",
    ),
    ("PoolEnableAutoScaleParameter", "autoScaleFormula text(8192); autoScaleEvaluationInterval period"),
    ("PoolEvaluateAutoScaleParameter", "autoScaleFormula! text(8192)"),
    (
        "NodeRemoveParameter",
        "nodeList! [text]; resizeTimeout period; nodeDeallocationOption word(requeue|terminate|taskcompletion|retaineddata)",
    ),
    ("NodeRebootParameter", "nodeRebootOption word(requeue|terminate|taskcompletion|retaineddata)"),
    ("NodeReimageParameter", "nodeReimageOption word(requeue|terminate|taskcompletion|retaineddata)"),
    ("NodeDeallocateParameter", "nodeDeallocateOption word(requeue|terminate|taskcompletion|retaineddata)"),
    ("NodeDisableSchedulingParameter", "nodeDisableSchedulingOption word(requeue|terminate|taskcompletion)"),
    ("ComputeNodeUser", "name! text; isAdmin flag; expiryTime time; password text; sshPublicKey text"),
    ("NodeUpdateUserParameter", "password text; expiryTime time; sshPublicKey text"),
    ("UploadBatchServiceLogsConfiguration", "containerUrl! text; startTime! time; endTime time; identityReference NodeIdentity"),
    (
        "JobAddParameter",
        "id! id; displayName text(1024); priority int(-1000..1000); maxParallelTasks int(-1..); allowTaskPreemption flag; \
         constraints JobConstraints; jobManagerTask JobManagerTask; jobPreparationTask JobPreparationTask; \
         jobReleaseTask JobReleaseTask; commonEnvironmentSettings [EnvironmentSetting]; poolInfo! PoolInformation; \
         onAllTasksComplete word(noaction|terminatejob); onTaskFailure word(noaction|performexitoptionsjobaction); \
         metadata [MetadataItem]; usesTaskDependencies flag; networkConfiguration JobNetworkConfiguration",
    ),
    (
        "JobPatchParameter",
        "priority int(-1000..1000); maxParallelTasks int(-1..); allowTaskPreemption flag; \
         onAllTasksComplete word(noaction|terminatejob); constraints JobConstraints; poolInfo PoolInformation; \
         metadata [MetadataItem]; networkConfiguration JobNetworkConfiguration",
    ),
    (
        "JobUpdateParameter",
        "priority int(-1000..1000); maxParallelTasks int(-1..); allowTaskPreemption flag; \
         onAllTasksComplete word(noaction|terminatejob); constraints JobConstraints; poolInfo! PoolInformation; \
         metadata [MetadataItem]",
    ),
    ("JobDisableParameter", "disableTasks! word(requeue|terminate|wait)"),
    ("JobTerminateParameter", "terminateReason text"),
    (
        "JobScheduleAddParameter",
        "id! id; displayName text(1024); schedule! Schedule; jobSpecification! JobSpecification; metadata [MetadataItem]",
    ),
    ("JobSchedulePatchParameter", "schedule Schedule; jobSpecification JobSpecification; metadata [MetadataItem]"),
    ("JobScheduleUpdateParameter", "schedule! Schedule; jobSpecification! JobSpecification; metadata [MetadataItem]"),
    ("Schedule", "doNotRunUntil time; doNotRunAfter time; startWindow period; recurrenceInterval period"),
    (
        "JobSpecification",
        "priority int(-1000..1000); allowTaskPreemption flag; maxParallelTasks int(-1..); displayName text(1024); \
         usesTaskDependencies flag; onAllTasksComplete word(noaction|terminatejob); \
         onTaskFailure word(noaction|performexitoptionsjobaction); networkConfiguration JobNetworkConfiguration; \
         constraints JobConstraints; jobManagerTask JobManagerTask; jobPreparationTask JobPreparationTask; \
         jobReleaseTask JobReleaseTask; commonEnvironmentSettings [EnvironmentSetting]; poolInfo! PoolInformation; \
         metadata [MetadataItem]",
    ),
    (
        "TaskAddParameter",
        "id! id; displayName text(1024); commandLine! text; containerSettings TaskContainerSettings; exitConditions ExitConditions; \
         resourceFiles [ResourceFile]; outputFiles [OutputFile]; environmentSettings [EnvironmentSetting]; \
         affinityInfo AffinityInformation; constraints TaskConstraints; requiredSlots int(1..256); userIdentity UserIdentity; \
         multiInstanceSettings MultiInstanceSettings; dependsOn TaskDependencies; \
         applicationPackageReferences [ApplicationPackageReference]; authenticationTokenSettings AuthenticationTokenSettings",
    ),
    ("TaskAddCollectionParameter", "value! [TaskAddParameter]"),
    ("TaskUpdateParameter", "constraints TaskConstraints"),
    ("CertificateAddParameter", "thumbprint! text; thumbprintAlgorithm! text; data! text; certificateFormat word(pfx|cer); password text"),
    ("JobConstraints", "maxWallClockTime period; maxTaskRetryCount int(-1..)"),
    ("TaskConstraints", "maxWallClockTime period; retentionTime period; maxTaskRetryCount int(-1..)"),
    ("PoolInformation", "poolId id; autoPoolSpecification AutoPoolSpecification"),
    (
        "AutoPoolSpecification",
        "autoPoolIdPrefix text(20); poolLifetimeOption! word(jobschedule|job); keepAlive flag; pool PoolSpecification",
    ),
    (
        "PoolSpecification",
        "displayName text(1024); vmSize! text(256); virtualMachineConfiguration! VirtualMachineConfiguration; \
         resizeTimeout period; targetDedicatedNodes int(0..100000); targetLowPriorityNodes int(0..100000); enableAutoScale flag; \
         autoScaleFormula text(8192); autoScaleEvaluationInterval period; enableInterNodeCommunication flag; \
         networkConfiguration NetworkConfiguration; startTask StartTask; certificateReferences [CertificateReference]; \
         applicationPackageReferences [ApplicationPackageReference]; applicationLicenses [text]; taskSlotsPerNode int(1..256); \
         taskSchedulingPolicy TaskSchedulingPolicy; userAccounts [UserAccount]; metadata [MetadataItem]; \
         mountConfiguration [MountConfiguration]; targetNodeCommunicationMode word(default|classic|simplified); \
         upgradePolicy UpgradePolicy; resourceTags texts",
    ),
    ("JobNetworkConfiguration", "subnetId! text; skipWithdrawFromVNet flag"),
    (
        "JobManagerTask",
        "id! id; displayName text(1024); commandLine! text; containerSettings TaskContainerSettings; resourceFiles [ResourceFile]; \
         outputFiles [OutputFile]; environmentSettings [EnvironmentSetting]; constraints TaskConstraints; requiredSlots int(1..256); \
         killJobOnCompletion flag; userIdentity UserIdentity; runExclusive flag; \
         applicationPackageReferences [ApplicationPackageReference]; authenticationTokenSettings AuthenticationTokenSettings; \
         allowLowPriorityNode flag",
    ),
    (
        "JobPreparationTask",
        "id id; commandLine! text; containerSettings TaskContainerSettings; resourceFiles [ResourceFile]; \
         environmentSettings [EnvironmentSetting]; constraints TaskConstraints; waitForSuccess flag; userIdentity UserIdentity; \
         rerunOnNodeRebootAfterSuccess flag",
    ),
    (
        "JobReleaseTask",
        "id id; commandLine! text; containerSettings TaskContainerSettings; resourceFiles [ResourceFile]; \
         environmentSettings [EnvironmentSetting]; maxWallClockTime period; retentionTime period; userIdentity UserIdentity",
    ),
    (
        "StartTask",
        "commandLine! text; containerSettings TaskContainerSettings; resourceFiles [ResourceFile]; \
         environmentSettings [EnvironmentSetting]; userIdentity UserIdentity; maxTaskRetryCount int(-1..); waitForSuccess flag",
    ),
    ("TaskSchedulingPolicy", "nodeFillType! word(spread|pack); jobDefaultOrder word(none|creationtime)"),
    (
        "VirtualMachineConfiguration",
        "imageReference! ImageReference; nodeAgentSKUId! text(256); windowsConfiguration object; dataDisks [object]; \
         licenseType text(256); containerConfiguration object; diskEncryptionConfiguration object; nodePlacementConfiguration object; \
         extensions [object]; osDisk object; securityProfile object; serviceArtifactReference object",
    ),
    (
        "ImageReference",
        "publisher text; offer text; sku text; version text; virtualMachineImageId text; sharedGalleryImageId text; \
         communityGalleryImageId text",
    ),
    (
        "NetworkConfiguration",
        "subnetId text; dynamicVNetAssignmentScope word(none|job); endpointConfiguration object; \
      publicIPAddressConfiguration object; enableAcceleratedNetworking flag",
    ),
    (
        "UserAccount",
        "name! text; password! text; elevationLevel word(nonadmin|admin); linuxUserConfiguration object; \
      windowsUserConfiguration object",
    ),
    (
        "MountConfiguration",
        "azureBlobFileSystemConfiguration object; nfsMountConfiguration object; cifsMountConfiguration object; \
      azureFileShareConfiguration object",
    ),
    ("UpgradePolicy", "mode! word(automatic|manual|rolling); automaticOSUpgradePolicy object; rollingUpgradePolicy object"),
    ("CertificateReference", "thumbprint! text; thumbprintAlgorithm! text; storeLocation text; storeName text; visibility [text]"),
    ("ApplicationPackageReference", "applicationId! text(64); version text(64)"),
    ("NodeIdentity", "resourceId text"),
    ("EnvironmentSetting", "name! text; value text"),
    ("MetadataItem", "name! text; value! text"),
    (
        "ResourceFile",
        "autoStorageContainerName text(63); storageContainerUrl text; httpUrl text; blobPrefix text(1024); filePath text; \
         fileMode text(16); identityReference NodeIdentity",
    ),
    ("OutputFile", "filePattern! text; destination! OutputFileDestination; uploadOptions! OutputFileUploadOptions"),
    ("OutputFileDestination", "container OutputFileContainer"),
    ("OutputFileContainer", "containerUrl! text; path text(1024); identityReference NodeIdentity; uploadHeaders [HttpHeader]"),
    ("OutputFileUploadOptions", "uploadCondition! word(tasksuccess|taskfailure|taskcompletion)"),
    ("HttpHeader", "name! text(2048); value! text(2048)"),
    ("UserIdentity", "username text; autoUser AutoUserSpecification"),
    ("AutoUserSpecification", "scope word(task|pool); elevationLevel word(nonadmin|admin)"),
    ("AffinityInformation", "affinityId! text(1024)"),
    ("AuthenticationTokenSettings", "access [word(job)]"),
    ("TaskContainerSettings", "imageName! text; containerRunOptions text; registry object; workingDirectory text"),
    ("MultiInstanceSettings", "numberOfInstances int(1..); coordinationCommandLine! text; commonResourceFiles [ResourceFile]"),
    ("TaskDependencies", "taskIds [id]; taskIdRanges [TaskIdRange]"),
    ("TaskIdRange", "start! int(0..); end! int(0..)"),
    (
        "ExitConditions",
        "exitCodes [ExitCodeMapping]; exitCodeRanges [ExitCodeRangeMapping]; preProcessingError ExitOptions; \
         fileUploadError ExitOptions; default ExitOptions",
    ),
    ("ExitCodeMapping", "code! int; exitOptions! ExitOptions"),
    ("ExitCodeRangeMapping", "start! int; end! int; exitOptions! ExitOptions"),
    ("ExitOptions", "jobAction word(none|disable|terminate); dependencyAction word(satisfy|block)"),
    ("ApplicationParameter", "displayName text(1024); allowUpdates flag; defaultVersion text(64)"),
    ("PackageActivateParameter", "format word(zip); isDefault flag"),
    (
        "QueuePolicy",
        "minNodes int(0..); maxNodes int(0..); reactMs long(0..); idleMs long(0..); \
         nodeDeallocationOption word(requeue|terminate|taskcompletion|retaineddata)",
    ),
];
