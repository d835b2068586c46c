//! The shapes of what the door answers, in the notation; names and spellings are Azure Batch's.

/// Every shape of an answer that is not also sent.
pub const ENTITIES: &[(&str, &str)] = &[
    ("BatchError", "code! text; message! ErrorMessage; values [BatchErrorDetail]"),
    ("ErrorMessage", "lang text; value! text"),
    ("BatchErrorDetail", "key! text; value! text"),
    (
        "CloudPool",
        "id! id; displayName text; url text; eTag text; lastModified time; creationTime time; state word(active|deleting); \
         stateTransitionTime time; allocationState word(steady|resizing|stopping); allocationStateTransitionTime time; vmSize text; \
         virtualMachineConfiguration VirtualMachineConfiguration; resizeTimeout period; resizeErrors [NamedError]; \
         currentDedicatedNodes int; currentLowPriorityNodes int; targetDedicatedNodes int; targetLowPriorityNodes int; \
         enableAutoScale flag; autoScaleFormula text; autoScaleEvaluationInterval period; autoScaleRun AutoScaleRun; \
         enableInterNodeCommunication flag; networkConfiguration NetworkConfiguration; startTask StartTask; \
         applicationPackageReferences [ApplicationPackageReference]; taskSlotsPerNode int; \
         taskSchedulingPolicy TaskSchedulingPolicy; userAccounts [object]; metadata [MetadataItem]; stats PoolStatistics; \
         mountConfiguration [MountConfiguration]; targetNodeCommunicationMode text; currentNodeCommunicationMode text; \
         upgradePolicy UpgradePolicy; resourceTags texts",
    ),
    ("AutoScaleRun", "timestamp! time; results text; error NamedError"),
    ("NamedError", "code text; message text; values [NameValuePair]"),
    ("NameValuePair", "name text; value text"),
    ("PoolStatistics", "url! text; startTime! time; lastUpdateTime! time; usageStats UsageStatistics; resourceStats ResourceStatistics"),
    ("UsageStatistics", "startTime! time; lastUpdateTime! time; dedicatedCoreTime! period"),
    (
        "ResourceStatistics",
        "startTime! time; lastUpdateTime! time; avgCPUPercentage! float; avgMemoryGiB! float; peakMemoryGiB! float; \
         avgDiskGiB! float; peakDiskGiB! float; diskReadIOps! long; diskWriteIOps! long; diskReadGiB! float; diskWriteGiB! float; \
         networkReadGiB! float; networkWriteGiB! float",
    ),
    ("PoolUsageMetrics", "poolId! text; startTime! time; endTime! time; vmSize! text; totalCoreHours! float"),
    (
        "NodeCounts",
        "creating! int; idle! int; offline! int; preempted! int; rebooting! int; reimaging! int; running! int; starting! int; \
         startTaskFailed! int; leavingPool! int; unknown! int; unusable! int; waitingForStartTask! int; upgradingOS! int; \
         deallocated int; deallocating int; total! int",
    ),
    ("PoolNodeCounts", "poolId! text; dedicated NodeCounts; lowPriority NodeCounts"),
    (
        "ImageInformation",
        "nodeAgentSKUId! text; imageReference! ImageReference; osType! word(linux|windows); capabilities [text]; \
         batchSupportEndOfLife time; verificationType! word(verified|unverified)",
    ),
    ("ApplicationSummary", "id! text; displayName! text; versions! [text]"),
    (
        "ComputeNode",
        "id! text; url text; state word(idle|rebooting|reimaging|running|unusable|creating|starting|waitingforstarttask|\
         starttaskfailed|unknown|leavingpool|offline|preempted|upgradingos|deallocated|deallocating); \
         schedulingState word(enabled|disabled); stateTransitionTime time; lastBootTime time; allocationTime time; ipAddress text; \
         affinityId text; vmSize text; totalTasksRun int; runningTasksCount int; runningTaskSlotsCount int; totalTasksSucceeded int; \
         recentTasks [TaskInformation]; startTask StartTask; startTaskInfo StartTaskInformation; errors [ComputeNodeError]; \
         isDedicated flag; nodeAgentInfo NodeAgentInformation; virtualMachineInfo object",
    ),
    ("ComputeNodeError", "code text; message text; errorDetails [NameValuePair]"),
    ("NodeAgentInformation", "version! text; lastUpdateTime! time"),
    (
        "StartTaskInformation",
        "state! word(running|completed); startTime! time; endTime time; exitCode int; failureInfo TaskFailureInformation; \
         retryCount! int; lastRetryTime time; result word(success|failure)",
    ),
    ("TaskInformation", "taskUrl text; jobId text; taskId text; subtaskId int; taskState! text; executionInfo TaskExecutionInformation"),
    ("RemoteLoginSettings", "remoteLoginIPAddress! text; remoteLoginPort! int"),
    ("UploadBatchServiceLogsResult", "virtualDirectoryName! text; numberOfFilesUploaded! int"),
    ("NodeVMExtension", "provisioningState text; vmExtension object; instanceView object"),
    (
        "CloudJob",
        "id! text; displayName text; usesTaskDependencies flag; url text; eTag text; lastModified time; creationTime time; \
         state word(active|disabling|disabled|enabling|terminating|completed|deleting); stateTransitionTime time; previousState text; \
         previousStateTransitionTime time; priority int; allowTaskPreemption flag; maxParallelTasks int; constraints JobConstraints; \
         jobManagerTask JobManagerTask; jobPreparationTask JobPreparationTask; jobReleaseTask JobReleaseTask; \
         commonEnvironmentSettings [EnvironmentSetting]; poolInfo PoolInformation; onAllTasksComplete text; onTaskFailure text; \
         metadata [MetadataItem]; executionInfo JobExecutionInformation; stats JobStatistics",
    ),
    ("JobExecutionInformation", "startTime! time; endTime time; poolId text; schedulingError object; terminateReason text"),
    (
        "JobStatistics",
        "url! text; startTime! time; lastUpdateTime! time; userCPUTime! period; kernelCPUTime! period; wallClockTime! period; \
         readIOps! long; writeIOps! long; readIOGiB! float; writeIOGiB! float; numSucceededTasks! long; numFailedTasks! long; \
         numTaskRetries! long; waitTime! period",
    ),
    ("TaskCountsResult", "taskCounts! TaskCounts; taskSlotCounts! TaskCounts"),
    ("TaskCounts", "active! int; running! int; completed! int; succeeded! int; failed! int"),
    (
        "PreparationAndReleaseStatus",
        "poolId text; nodeId text; nodeUrl text; jobPreparationTaskExecutionInfo JobPreparationTaskExecutionInformation; \
         jobReleaseTaskExecutionInfo JobReleaseTaskExecutionInformation",
    ),
    (
        "JobPreparationTaskExecutionInformation",
        "startTime! time; endTime time; state! word(running|completed); taskRootDirectory text; taskRootDirectoryUrl text; exitCode int; \
         failureInfo TaskFailureInformation; retryCount! int; lastRetryTime time; result word(success|failure)",
    ),
    (
        "JobReleaseTaskExecutionInformation",
        "startTime! time; endTime time; state! word(running|completed); taskRootDirectory text; taskRootDirectoryUrl text; exitCode int; \
         failureInfo TaskFailureInformation; result word(success|failure)",
    ),
    (
        "CloudJobSchedule",
        "id! text; displayName text; url text; eTag text; lastModified time; creationTime time; \
         state word(active|completed|disabled|terminating|deleting); stateTransitionTime time; previousState text; \
         previousStateTransitionTime time; schedule Schedule; jobSpecification JobSpecification; \
         executionInfo JobScheduleExecutionInformation; metadata [MetadataItem]; stats JobStatistics",
    ),
    ("JobScheduleExecutionInformation", "nextRunTime time; recentJob RecentJob; endTime time"),
    ("RecentJob", "id text; url text"),
    (
        "CloudTask",
        "id! text; displayName text; url text; eTag text; lastModified time; creationTime time; exitConditions ExitConditions; \
         state word(active|preparing|running|completed); stateTransitionTime time; previousState text; \
         previousStateTransitionTime time; commandLine text; containerSettings TaskContainerSettings; resourceFiles [ResourceFile]; \
         outputFiles [OutputFile]; environmentSettings [EnvironmentSetting]; affinityInfo AffinityInformation; \
         constraints TaskConstraints; requiredSlots int; userIdentity UserIdentity; executionInfo TaskExecutionInformation; \
         nodeInfo ComputeNodeInformation; multiInstanceSettings MultiInstanceSettings; stats TaskStatistics; \
         dependsOn TaskDependencies; applicationPackageReferences [ApplicationPackageReference]; \
         authenticationTokenSettings AuthenticationTokenSettings",
    ),
    (
        "TaskExecutionInformation",
        "startTime time; endTime time; exitCode int; failureInfo TaskFailureInformation; retryCount! int; lastRetryTime time; \
         requeueCount! int; lastRequeueTime time; result word(success|failure)",
    ),
    ("TaskFailureInformation", "category! word(usererror|servererror); code text; message text; details [NameValuePair]"),
    (
        "ComputeNodeInformation",
        "affinityId text; nodeUrl text; poolId text; nodeId text; taskRootDirectory text; taskRootDirectoryUrl text",
    ),
    (
        "TaskStatistics",
        "url! text; startTime! time; lastUpdateTime! time; userCPUTime! period; kernelCPUTime! period; wallClockTime! period; \
         readIOps! long; writeIOps! long; readIOGiB! float; writeIOGiB! float; waitTime! period",
    ),
    ("TaskAddCollectionResult", "value [TaskAddResult]"),
    (
        "TaskAddResult",
        "status! word(success|clienterror|servererror); taskId! text; eTag text; lastModified time; location text; error BatchError",
    ),
    ("SubtaskList", "value [object]"),
    ("NodeFile", "name text; url text; isDirectory flag; properties FileProperties"),
    ("FileProperties", "creationTime time; lastModified! time; contentLength! long; contentType text; fileMode text"),
    ("Certificate", "thumbprint text; thumbprintAlgorithm text; url text; state text"),
    ("Health", "status text"),
    (
        "ApplicationView",
        "id! text; displayName text; allowUpdates! flag; defaultVersion text; eTag text; creationTime time; lastModified time; \
         versions [PackageView]",
    ),
    (
        "PackageView",
        "version! text; state! word(pending|active); format text; bytes long; lastActivationTime time; uploadUrl text; \
         uploadUrlExpiry time",
    ),
    ("QueueView", "name! text; role! word(tasks|wideTasks|dead|internal); poolId text; exists flag; messages int; consumers int"),
    (
        "MessageView",
        "position! int; exchange text; routingKey text; redelivered flag; messageId text; contentType text; replyTo text; \
         correlationId text; priority int; expiration text; bytes long; body any; bodyBase64 text",
    ),
    ("PurgeResult", "purged! int"),
    (
        "PoolView",
        "id! text; state text; allocationState text; policy QueuePolicy; decision text; targetNodes int; currentNodes int; \
         slotsPerNode int; nodes object; waiting object; running object; lastModified time",
    ),
];
