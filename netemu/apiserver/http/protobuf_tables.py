"""What the fields of protobuf messages are called: facts of `k8s.io/api`'s and apimachinery's `generated.proto` (1.32).

One line per message: `NAME: NUMBER FIELD [TYPE], ...`, continued on indented lines. The field is named as in JSON.
Types: none for string, `i` integer, `b` boolean, `d` double, `bytes` (base64 in JSON), a message's name, or one of
those with a JSON form of their own: `time`, `microtime`, `intstr`, `quantity`, `json` (raw JSON text), `strings` (a
message around a list). `[T]` is a list, `{T}` a map from strings. `?` marks a pointer in Go, where a zero is meant.
`^` in the place of the name merges the message's fields into the parent, as Go's embedding does.
Where two groups have a message of one name, those outside of core/v1 carry their group: `discovery.EndpointPort`.
"""

from __future__ import annotations

ROOTS: dict[tuple[str, str], str] = {
    ("apps/v1", "ControllerRevision"): "ControllerRevision",
    ("apps/v1", "DaemonSet"): "DaemonSet",
    ("apps/v1", "Deployment"): "Deployment",
    ("apps/v1", "ReplicaSet"): "ReplicaSet",
    ("apps/v1", "StatefulSet"): "StatefulSet",
    ("authentication.k8s.io/v1", "SelfSubjectReview"): "SelfSubjectReview",
    ("authentication.k8s.io/v1beta1", "SelfSubjectReview"): "SelfSubjectReview",
    ("authentication.k8s.io/v1", "TokenRequest"): "TokenRequest",
    ("authentication.k8s.io/v1", "TokenReview"): "TokenReview",
    ("authorization.k8s.io/v1", "LocalSubjectAccessReview"): "SubjectAccessReview",
    ("authorization.k8s.io/v1", "SelfSubjectAccessReview"): "SelfSubjectAccessReview",
    ("authorization.k8s.io/v1", "SelfSubjectRulesReview"): "SelfSubjectRulesReview",
    ("authorization.k8s.io/v1", "SubjectAccessReview"): "SubjectAccessReview",
    ("autoscaling/v1", "Scale"): "Scale",
    ("batch/v1", "CronJob"): "CronJob",
    ("batch/v1", "Job"): "Job",
    ("certificates.k8s.io/v1", "CertificateSigningRequest"): "CertificateSigningRequest",
    ("coordination.k8s.io/v1", "Lease"): "Lease",
    ("discovery.k8s.io/v1", "EndpointSlice"): "EndpointSlice",
    ("events.k8s.io/v1", "Event"): "events.Event",
    ("networking.k8s.io/v1", "IPAddress"): "IPAddress",
    ("networking.k8s.io/v1", "Ingress"): "Ingress",
    ("networking.k8s.io/v1", "IngressClass"): "IngressClass",
    ("networking.k8s.io/v1", "NetworkPolicy"): "NetworkPolicy",
    ("networking.k8s.io/v1", "ServiceCIDR"): "ServiceCIDR",
    ("node.k8s.io/v1", "RuntimeClass"): "RuntimeClass",
    ("policy/v1", "Eviction"): "Eviction",
    ("policy/v1", "PodDisruptionBudget"): "PodDisruptionBudget",
    ("rbac.authorization.k8s.io/v1", "ClusterRole"): "ClusterRole",
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"): "RoleBinding",
    ("rbac.authorization.k8s.io/v1", "Role"): "Role",
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): "RoleBinding",
    ("v1", "Binding"): "Binding",
    ("v1", "ConfigMap"): "ConfigMap",
    ("v1", "Endpoints"): "Endpoints",
    ("v1", "Event"): "Event",
    ("v1", "LimitRange"): "LimitRange",
    ("v1", "Namespace"): "Namespace",
    ("v1", "Node"): "Node",
    ("v1", "PersistentVolume"): "PersistentVolume",
    ("v1", "PersistentVolumeClaim"): "PersistentVolumeClaim",
    ("v1", "Pod"): "Pod",
    ("v1", "ReplicationController"): "ReplicationController",
    ("v1", "ResourceQuota"): "ResourceQuota",
    ("v1", "Secret"): "Secret",
    ("v1", "Service"): "Service",
    ("v1", "ServiceAccount"): "ServiceAccount",
}
"""The message of each `apiVersion` and `kind`; DeleteOptions has one message in every version."""

MESSAGES = """
AWSElasticBlockStoreVolumeSource: 1 volumeID, 2 fsType, 3 partition i, 4 readOnly b
Affinity: 1 nodeAffinity NodeAffinity, 2 podAffinity PodAffinity, 3 podAntiAffinity PodAntiAffinity
AggregationRule: 1 clusterRoleSelectors [LabelSelector]
AppArmorProfile: 1 type, 2 localhostProfile s?
AttachedVolume: 1 name, 2 devicePath
AzureDiskVolumeSource: 1 diskName, 2 diskURI, 3 cachingMode s?, 4 fsType s?, 5 readOnly b?, 6 kind s?
AzureFilePersistentVolumeSource: 1 secretName, 2 shareName, 3 readOnly b, 4 secretNamespace s?
AzureFileVolumeSource: 1 secretName, 2 shareName, 3 readOnly b
Binding: 1 metadata ObjectMeta, 2 target ObjectReference
BoundObjectReference: 1 kind, 2 apiVersion, 3 name, 4 uid
CSIPersistentVolumeSource: 1 driver, 2 volumeHandle, 3 readOnly b, 4 fsType, 5 volumeAttributes {s}, 6
    controllerPublishSecretRef SecretReference, 7 nodeStageSecretRef SecretReference, 8 nodePublishSecretRef
    SecretReference, 9 controllerExpandSecretRef SecretReference, 10 nodeExpandSecretRef SecretReference
CSIVolumeSource: 1 driver, 2 readOnly b?, 3 fsType s?, 4 volumeAttributes {s}, 5 nodePublishSecretRef
    LocalObjectReference
Capabilities: 1 add [s], 2 drop [s]
CephFSPersistentVolumeSource: 1 monitors [s], 2 path, 3 user, 4 secretFile, 5 secretRef SecretReference, 6 readOnly b
CephFSVolumeSource: 1 monitors [s], 2 path, 3 user, 4 secretFile, 5 secretRef LocalObjectReference, 6 readOnly b
CertificateSigningRequest: 1 metadata ObjectMeta, 2 spec CertificateSigningRequestSpec, 3 status
    CertificateSigningRequestStatus
CertificateSigningRequestCondition: 1 type, 2 reason, 3 message, 4 lastUpdateTime time, 5 lastTransitionTime time, 6
    status
CertificateSigningRequestSpec: 1 request bytes, 2 username, 3 uid, 4 groups [s], 5 usages [s], 6 extra {strings}, 7
    signerName, 8 expirationSeconds i?
CertificateSigningRequestStatus: 1 conditions [CertificateSigningRequestCondition], 2 certificate bytes
CinderPersistentVolumeSource: 1 volumeID, 2 fsType, 3 readOnly b, 4 secretRef SecretReference
CinderVolumeSource: 1 volumeID, 2 fsType, 3 readOnly b, 4 secretRef LocalObjectReference
ClientIPConfig: 1 timeoutSeconds i?
ClusterRole: 1 metadata ObjectMeta, 2 rules [PolicyRule], 3 aggregationRule AggregationRule
ClusterTrustBundleProjection: 1 name s?, 2 signerName s?, 3 labelSelector LabelSelector, 5 optional b?, 4 path
Condition: 1 type, 2 status, 3 observedGeneration i, 4 lastTransitionTime time, 5 reason, 6 message
ConfigMap: 1 metadata ObjectMeta, 4 immutable b?, 2 data {s}, 3 binaryData {bytes}
ConfigMapEnvSource: 1 ^ LocalObjectReference, 2 optional b?
ConfigMapKeySelector: 1 ^ LocalObjectReference, 2 key, 3 optional b?
ConfigMapNodeConfigSource: 1 namespace, 2 name, 3 uid, 4 resourceVersion, 5 kubeletConfigKey
ConfigMapProjection: 1 ^ LocalObjectReference, 2 items [KeyToPath], 4 optional b?
ConfigMapVolumeSource: 1 ^ LocalObjectReference, 2 items [KeyToPath], 3 defaultMode i?, 4 optional b?
Container: 1 name, 2 image, 3 command [s], 4 args [s], 5 workingDir, 6 ports [ContainerPort], 19 envFrom
    [EnvFromSource], 7 env [EnvVar], 8 resources ResourceRequirements, 23 resizePolicy [ContainerResizePolicy], 24
    restartPolicy s?, 9 volumeMounts [VolumeMount], 21 volumeDevices [VolumeDevice], 10 livenessProbe Probe, 11
    readinessProbe Probe, 22 startupProbe Probe, 12 lifecycle Lifecycle, 13 terminationMessagePath, 20
    terminationMessagePolicy, 14 imagePullPolicy, 15 securityContext SecurityContext, 16 stdin b, 17 stdinOnce b, 18
    tty b
ContainerImage: 1 names [s], 2 sizeBytes i
ContainerPort: 1 name, 2 hostPort i, 3 containerPort i, 4 protocol, 5 hostIP
ContainerResizePolicy: 1 resourceName, 2 restartPolicy
ContainerState: 1 waiting ContainerStateWaiting, 2 running ContainerStateRunning, 3 terminated
    ContainerStateTerminated
ContainerStateRunning: 1 startedAt time
ContainerStateTerminated: 1 exitCode i, 2 signal i, 3 reason, 4 message, 5 startedAt time, 6 finishedAt time, 7
    containerID
ContainerStateWaiting: 1 reason, 2 message
ContainerStatus: 1 name, 2 state ContainerState, 3 lastState ContainerState, 4 ready b, 5 restartCount i, 6 image, 7
    imageID, 8 containerID, 9 started b?, 10 allocatedResources {quantity}, 11 resources ResourceRequirements, 12
    volumeMounts [VolumeMountStatus], 13 user ContainerUser, 14 allocatedResourcesStatus [ResourceStatus]
ContainerUser: 1 linux LinuxContainerUser
ControllerRevision: 1 metadata ObjectMeta, 2 data json, 3 revision i
CronJob: 1 metadata ObjectMeta, 2 spec CronJobSpec, 3 status CronJobStatus
CronJobSpec: 1 schedule, 2 startingDeadlineSeconds i?, 3 concurrencyPolicy, 4 suspend b?, 5 jobTemplate
    JobTemplateSpec, 6 successfulJobsHistoryLimit i?, 7 failedJobsHistoryLimit i?, 8 timeZone s?
CronJobStatus: 1 active [ObjectReference], 4 lastScheduleTime time, 5 lastSuccessfulTime time
DaemonEndpoint: 1 Port i
DaemonSet: 1 metadata ObjectMeta, 2 spec DaemonSetSpec, 3 status DaemonSetStatus
DaemonSetCondition: 1 type, 2 status, 3 lastTransitionTime time, 4 reason, 5 message
DaemonSetSpec: 1 selector LabelSelector, 2 template PodTemplateSpec, 3 updateStrategy DaemonSetUpdateStrategy, 4
    minReadySeconds i, 6 revisionHistoryLimit i?
DaemonSetStatus: 1 currentNumberScheduled i, 2 numberMisscheduled i, 3 desiredNumberScheduled i, 4 numberReady i, 5
    observedGeneration i, 6 updatedNumberScheduled i, 7 numberAvailable i, 8 numberUnavailable i, 9 collisionCount i?,
    10 conditions [DaemonSetCondition]
DaemonSetUpdateStrategy: 1 type, 2 rollingUpdate RollingUpdateDaemonSet
DeleteOptions: 1 gracePeriodSeconds i?, 2 preconditions Preconditions, 3 orphanDependents b?, 4 propagationPolicy s?,
    5 dryRun [s], 6 ignoreStoreReadErrorWithClusterBreakingPotential b?
Deployment: 1 metadata ObjectMeta, 2 spec DeploymentSpec, 3 status DeploymentStatus
DeploymentCondition: 1 type, 2 status, 6 lastUpdateTime time, 7 lastTransitionTime time, 4 reason, 5 message
DeploymentSpec: 1 replicas i?, 2 selector LabelSelector, 3 template PodTemplateSpec, 4 strategy DeploymentStrategy, 5
    minReadySeconds i, 6 revisionHistoryLimit i?, 7 paused b, 9 progressDeadlineSeconds i?
DeploymentStatus: 1 observedGeneration i, 2 replicas i, 3 updatedReplicas i, 7 readyReplicas i, 4 availableReplicas i,
    5 unavailableReplicas i, 6 conditions [DeploymentCondition], 8 collisionCount i?
DeploymentStrategy: 1 type, 2 rollingUpdate RollingUpdateDeployment
DownwardAPIProjection: 1 items [DownwardAPIVolumeFile]
DownwardAPIVolumeFile: 1 path, 2 fieldRef ObjectFieldSelector, 3 resourceFieldRef ResourceFieldSelector, 4 mode i?
DownwardAPIVolumeSource: 1 items [DownwardAPIVolumeFile], 2 defaultMode i?
EmptyDirVolumeSource: 1 medium, 2 sizeLimit quantity
Endpoint: 1 addresses [s], 2 conditions EndpointConditions, 3 hostname s?, 4 targetRef ObjectReference, 5
    deprecatedTopology {s}, 6 nodeName s?, 7 zone s?, 8 hints EndpointHints
EndpointAddress: 1 ip, 3 hostname, 4 nodeName s?, 2 targetRef ObjectReference
EndpointConditions: 1 ready b?, 2 serving b?, 3 terminating b?
EndpointHints: 1 forZones [ForZone]
EndpointPort: 1 name, 2 port i, 3 protocol, 4 appProtocol s?
EndpointSlice: 1 metadata ObjectMeta, 4 addressType, 2 endpoints [Endpoint], 3 ports [discovery.EndpointPort]
EndpointSubset: 1 addresses [EndpointAddress], 2 notReadyAddresses [EndpointAddress], 3 ports [EndpointPort]
Endpoints: 1 metadata ObjectMeta, 2 subsets [EndpointSubset]
EnvFromSource: 1 prefix, 2 configMapRef ConfigMapEnvSource, 3 secretRef SecretEnvSource
EnvVar: 1 name, 2 value, 3 valueFrom EnvVarSource
EnvVarSource: 1 fieldRef ObjectFieldSelector, 2 resourceFieldRef ResourceFieldSelector, 3 configMapKeyRef
    ConfigMapKeySelector, 4 secretKeyRef SecretKeySelector
EphemeralContainer: 1 ^ EphemeralContainerCommon, 2 targetContainerName
EphemeralContainerCommon: 1 name, 2 image, 3 command [s], 4 args [s], 5 workingDir, 6 ports [ContainerPort], 19
    envFrom [EnvFromSource], 7 env [EnvVar], 8 resources ResourceRequirements, 23 resizePolicy
    [ContainerResizePolicy], 24 restartPolicy s?, 9 volumeMounts [VolumeMount], 21 volumeDevices [VolumeDevice], 10
    livenessProbe Probe, 11 readinessProbe Probe, 22 startupProbe Probe, 12 lifecycle Lifecycle, 13
    terminationMessagePath, 20 terminationMessagePolicy, 14 imagePullPolicy, 15 securityContext SecurityContext, 16
    stdin b, 17 stdinOnce b, 18 tty b
EphemeralVolumeSource: 1 volumeClaimTemplate PersistentVolumeClaimTemplate
Event: 1 metadata ObjectMeta, 2 involvedObject ObjectReference, 3 reason, 4 message, 5 source EventSource, 6
    firstTimestamp time, 7 lastTimestamp time, 8 count i, 9 type, 10 eventTime microtime, 11 series EventSeries, 12
    action, 13 related ObjectReference, 14 reportingComponent, 15 reportingInstance
EventSeries: 1 count i, 2 lastObservedTime microtime
EventSource: 1 component, 2 host
Eviction: 1 metadata ObjectMeta, 2 deleteOptions DeleteOptions
ExecAction: 1 command [s]
FCVolumeSource: 1 targetWWNs [s], 2 lun i?, 3 fsType, 4 readOnly b, 5 wwids [s]
FieldSelectorAttributes: 1 rawSelector, 2 requirements [FieldSelectorRequirement]
FieldSelectorRequirement: 1 key, 2 operator, 3 values [s]
FlexPersistentVolumeSource: 1 driver, 2 fsType, 3 secretRef SecretReference, 4 readOnly b, 5 options {s}
FlexVolumeSource: 1 driver, 2 fsType, 3 secretRef LocalObjectReference, 4 readOnly b, 5 options {s}
FlockerVolumeSource: 1 datasetName, 2 datasetUUID
ForZone: 1 name
GCEPersistentDiskVolumeSource: 1 pdName, 2 fsType, 3 partition i, 4 readOnly b
GRPCAction: 1 port i, 2 service s?
GitRepoVolumeSource: 1 repository, 2 revision, 3 directory
GlusterfsPersistentVolumeSource: 1 endpoints, 2 path, 3 readOnly b, 4 endpointsNamespace s?
GlusterfsVolumeSource: 1 endpoints, 2 path, 3 readOnly b
HTTPGetAction: 1 path, 2 port intstr, 3 host, 4 scheme, 5 httpHeaders [HTTPHeader]
HTTPHeader: 1 name, 2 value s?
HTTPIngressPath: 1 path, 3 pathType s?, 2 backend IngressBackend
HTTPIngressRuleValue: 1 paths [HTTPIngressPath]
HostAlias: 1 ip, 2 hostnames [s]
HostIP: 1 ip
HostPathVolumeSource: 1 path, 2 type s?
IPAddress: 1 metadata ObjectMeta, 2 spec IPAddressSpec
IPAddressSpec: 1 parentRef ParentReference
IPBlock: 1 cidr, 2 except [s]
ISCSIPersistentVolumeSource: 1 targetPortal, 2 iqn, 3 lun i, 4 iscsiInterface, 5 fsType, 6 readOnly b, 7 portals [s],
    8 chapAuthDiscovery b, 11 chapAuthSession b, 10 secretRef SecretReference, 12 initiatorName s?
ISCSIVolumeSource: 1 targetPortal, 2 iqn, 3 lun i, 4 iscsiInterface, 5 fsType, 6 readOnly b, 7 portals [s], 8
    chapAuthDiscovery b, 11 chapAuthSession b, 10 secretRef LocalObjectReference, 12 initiatorName s?
ImageVolumeSource: 1 reference, 2 pullPolicy
Ingress: 1 metadata ObjectMeta, 2 spec IngressSpec, 3 status IngressStatus
IngressBackend: 4 service IngressServiceBackend, 3 resource TypedLocalObjectReference
IngressClass: 1 metadata ObjectMeta, 2 spec IngressClassSpec
IngressClassParametersReference: 1 apiGroup s?, 2 kind, 3 name, 4 scope s?, 5 namespace s?
IngressClassSpec: 1 controller, 2 parameters IngressClassParametersReference
IngressLoadBalancerIngress: 1 ip, 2 hostname, 4 ports [IngressPortStatus]
IngressLoadBalancerStatus: 1 ingress [IngressLoadBalancerIngress]
IngressPortStatus: 1 port i, 2 protocol, 3 error s?
IngressRule: 1 host, 2 ^ IngressRuleValue
IngressRuleValue: 1 http HTTPIngressRuleValue
IngressServiceBackend: 1 name, 2 port ServiceBackendPort
IngressSpec: 4 ingressClassName s?, 1 defaultBackend IngressBackend, 2 tls [IngressTLS], 3 rules [IngressRule]
IngressStatus: 1 loadBalancer IngressLoadBalancerStatus
IngressTLS: 1 hosts [s], 2 secretName
Job: 1 metadata ObjectMeta, 2 spec JobSpec, 3 status JobStatus
JobCondition: 1 type, 2 status, 3 lastProbeTime time, 4 lastTransitionTime time, 5 reason, 6 message
JobSpec: 1 parallelism i?, 2 completions i?, 3 activeDeadlineSeconds i?, 4 selector LabelSelector, 5 manualSelector
    b?, 6 template PodTemplateSpec, 7 backoffLimit i?, 8 ttlSecondsAfterFinished i?, 9 completionMode s?, 10 suspend
    b?, 11 podFailurePolicy PodFailurePolicy, 12 backoffLimitPerIndex i?, 13 maxFailedIndexes i?, 14
    podReplacementPolicy s?, 15 managedBy s?, 16 successPolicy SuccessPolicy
JobStatus: 1 conditions [JobCondition], 2 startTime time, 3 completionTime time, 4 active i, 5 succeeded i, 6 failed
    i, 7 completedIndexes, 8 uncountedTerminatedPods UncountedTerminatedPods, 9 ready i?, 10 failedIndexes s?, 11
    terminating i?
JobTemplateSpec: 1 metadata ObjectMeta, 2 spec JobSpec
KeyToPath: 1 key, 2 path, 3 mode i?
LabelSelector: 1 matchLabels {s}, 2 matchExpressions [LabelSelectorRequirement]
LabelSelectorAttributes: 1 rawSelector, 2 requirements [LabelSelectorRequirement]
LabelSelectorRequirement: 1 key, 2 operator, 3 values [s]
Lease: 1 metadata ObjectMeta, 2 spec LeaseSpec
LeaseSpec: 1 holderIdentity s?, 2 leaseDurationSeconds i?, 3 acquireTime microtime, 4 renewTime microtime, 5
    leaseTransitions i?, 6 strategy s?, 7 preferredHolder s?
Lifecycle: 1 postStart LifecycleHandler, 2 preStop LifecycleHandler
LifecycleHandler: 1 exec ExecAction, 2 httpGet HTTPGetAction, 3 tcpSocket TCPSocketAction, 4 sleep SleepAction
LimitRange: 1 metadata ObjectMeta, 2 spec LimitRangeSpec
LimitRangeItem: 1 type, 2 max {quantity}, 3 min {quantity}, 4 default {quantity}, 5 defaultRequest {quantity}, 6
    maxLimitRequestRatio {quantity}
LimitRangeSpec: 1 limits [LimitRangeItem]
LinuxContainerUser: 1 uid i, 2 gid i, 3 supplementalGroups [i]
LoadBalancerIngress: 1 ip, 2 hostname, 3 ipMode s?, 4 ports [PortStatus]
LoadBalancerStatus: 1 ingress [LoadBalancerIngress]
LocalObjectReference: 1 name
LocalVolumeSource: 1 path, 2 fsType s?
ManagedFieldsEntry: 1 manager, 2 operation, 3 apiVersion, 4 time time, 6 fieldsType, 7 fieldsV1 json, 8 subresource
ModifyVolumeStatus: 1 targetVolumeAttributesClassName, 2 status
NFSVolumeSource: 1 server, 2 path, 3 readOnly b
Namespace: 1 metadata ObjectMeta, 2 spec NamespaceSpec, 3 status NamespaceStatus
NamespaceCondition: 1 type, 2 status, 4 lastTransitionTime time, 5 reason, 6 message
NamespaceSpec: 1 finalizers [s]
NamespaceStatus: 1 phase, 2 conditions [NamespaceCondition]
NetworkPolicy: 1 metadata ObjectMeta, 2 spec NetworkPolicySpec
NetworkPolicyEgressRule: 1 ports [NetworkPolicyPort], 2 to [NetworkPolicyPeer]
NetworkPolicyIngressRule: 1 ports [NetworkPolicyPort], 2 from [NetworkPolicyPeer]
NetworkPolicyPeer: 1 podSelector LabelSelector, 2 namespaceSelector LabelSelector, 3 ipBlock IPBlock
NetworkPolicyPort: 1 protocol s?, 2 port intstr?, 3 endPort i?
NetworkPolicySpec: 1 podSelector LabelSelector, 2 ingress [NetworkPolicyIngressRule], 3 egress
    [NetworkPolicyEgressRule], 4 policyTypes [s]
Node: 1 metadata ObjectMeta, 2 spec NodeSpec, 3 status NodeStatus
NodeAddress: 1 type, 2 address
NodeAffinity: 1 requiredDuringSchedulingIgnoredDuringExecution NodeSelector, 2
    preferredDuringSchedulingIgnoredDuringExecution [PreferredSchedulingTerm]
NodeCondition: 1 type, 2 status, 3 lastHeartbeatTime time, 4 lastTransitionTime time, 5 reason, 6 message
NodeConfigSource: 2 configMap ConfigMapNodeConfigSource
NodeConfigStatus: 1 assigned NodeConfigSource, 2 active NodeConfigSource, 3 lastKnownGood NodeConfigSource, 4 error
NodeDaemonEndpoints: 1 kubeletEndpoint DaemonEndpoint
NodeFeatures: 1 supplementalGroupsPolicy b?
NodeRuntimeHandler: 1 name, 2 features NodeRuntimeHandlerFeatures
NodeRuntimeHandlerFeatures: 1 recursiveReadOnlyMounts b?, 2 userNamespaces b?
NodeSelector: 1 nodeSelectorTerms [NodeSelectorTerm]
NodeSelectorRequirement: 1 key, 2 operator, 3 values [s]
NodeSelectorTerm: 1 matchExpressions [NodeSelectorRequirement], 2 matchFields [NodeSelectorRequirement]
NodeSpec: 1 podCIDR, 7 podCIDRs [s], 3 providerID, 4 unschedulable b, 5 taints [Taint], 6 configSource
    NodeConfigSource, 2 externalID
NodeStatus: 1 capacity {quantity}, 2 allocatable {quantity}, 3 phase, 4 conditions [NodeCondition], 5 addresses
    [NodeAddress], 6 daemonEndpoints NodeDaemonEndpoints, 7 nodeInfo NodeSystemInfo, 8 images [ContainerImage], 9
    volumesInUse [s], 10 volumesAttached [AttachedVolume], 11 config NodeConfigStatus, 12 runtimeHandlers
    [NodeRuntimeHandler], 13 features NodeFeatures
NodeSystemInfo: 1 machineID, 2 systemUUID, 3 bootID, 4 kernelVersion, 5 osImage, 6 containerRuntimeVersion, 7
    kubeletVersion, 8 kubeProxyVersion, 9 operatingSystem, 10 architecture
NonResourceAttributes: 1 path, 2 verb
NonResourceRule: 1 verbs [s], 2 nonResourceURLs [s]
ObjectFieldSelector: 1 apiVersion, 2 fieldPath
ObjectMeta: 1 name, 2 generateName, 3 namespace, 4 selfLink, 5 uid, 6 resourceVersion, 7 generation i, 8
    creationTimestamp time, 9 deletionTimestamp time, 10 deletionGracePeriodSeconds i?, 11 labels {s}, 12 annotations
    {s}, 13 ownerReferences [OwnerReference], 14 finalizers [s], 17 managedFields [ManagedFieldsEntry]
ObjectReference: 1 kind, 2 namespace, 3 name, 4 uid, 5 apiVersion, 6 resourceVersion, 7 fieldPath
Overhead: 1 podFixed {quantity}
OwnerReference: 5 apiVersion, 1 kind, 3 name, 4 uid, 6 controller b?, 7 blockOwnerDeletion b?
ParentReference: 1 group, 2 resource, 3 namespace, 4 name
PersistentVolume: 1 metadata ObjectMeta, 2 spec PersistentVolumeSpec, 3 status PersistentVolumeStatus
PersistentVolumeClaim: 1 metadata ObjectMeta, 2 spec PersistentVolumeClaimSpec, 3 status PersistentVolumeClaimStatus
PersistentVolumeClaimCondition: 1 type, 2 status, 3 lastProbeTime time, 4 lastTransitionTime time, 5 reason, 6 message
PersistentVolumeClaimSpec: 1 accessModes [s], 4 selector LabelSelector, 2 resources VolumeResourceRequirements, 3
    volumeName, 5 storageClassName s?, 6 volumeMode s?, 7 dataSource TypedLocalObjectReference, 8 dataSourceRef
    TypedObjectReference, 9 volumeAttributesClassName s?
PersistentVolumeClaimStatus: 1 phase, 2 accessModes [s], 3 capacity {quantity}, 4 conditions
    [PersistentVolumeClaimCondition], 5 allocatedResources {quantity}, 7 allocatedResourceStatuses {s}, 8
    currentVolumeAttributesClassName s?, 9 modifyVolumeStatus ModifyVolumeStatus
PersistentVolumeClaimTemplate: 1 metadata ObjectMeta, 2 spec PersistentVolumeClaimSpec
PersistentVolumeClaimVolumeSource: 1 claimName, 2 readOnly b
PersistentVolumeSource: 1 gcePersistentDisk GCEPersistentDiskVolumeSource, 2 awsElasticBlockStore
    AWSElasticBlockStoreVolumeSource, 3 hostPath HostPathVolumeSource, 4 glusterfs GlusterfsPersistentVolumeSource, 5
    nfs NFSVolumeSource, 6 rbd RBDPersistentVolumeSource, 7 iscsi ISCSIPersistentVolumeSource, 8 cinder
    CinderPersistentVolumeSource, 9 cephfs CephFSPersistentVolumeSource, 10 fc FCVolumeSource, 11 flocker
    FlockerVolumeSource, 12 flexVolume FlexPersistentVolumeSource, 13 azureFile AzureFilePersistentVolumeSource, 14
    vsphereVolume VsphereVirtualDiskVolumeSource, 15 quobyte QuobyteVolumeSource, 16 azureDisk AzureDiskVolumeSource,
    17 photonPersistentDisk PhotonPersistentDiskVolumeSource, 18 portworxVolume PortworxVolumeSource, 19 scaleIO
    ScaleIOPersistentVolumeSource, 20 local LocalVolumeSource, 21 storageos StorageOSPersistentVolumeSource, 22 csi
    CSIPersistentVolumeSource
PersistentVolumeSpec: 1 capacity {quantity}, 2 ^ PersistentVolumeSource, 3 accessModes [s], 4 claimRef
    ObjectReference, 5 persistentVolumeReclaimPolicy, 6 storageClassName, 7 mountOptions [s], 8 volumeMode s?, 9
    nodeAffinity VolumeNodeAffinity, 10 volumeAttributesClassName s?
PersistentVolumeStatus: 1 phase, 2 message, 3 reason, 4 lastPhaseTransitionTime time
PhotonPersistentDiskVolumeSource: 1 pdID, 2 fsType
Pod: 1 metadata ObjectMeta, 2 spec PodSpec, 3 status PodStatus
PodAffinity: 1 requiredDuringSchedulingIgnoredDuringExecution [PodAffinityTerm], 2
    preferredDuringSchedulingIgnoredDuringExecution [WeightedPodAffinityTerm]
PodAffinityTerm: 1 labelSelector LabelSelector, 2 namespaces [s], 3 topologyKey, 4 namespaceSelector LabelSelector, 5
    matchLabelKeys [s], 6 mismatchLabelKeys [s]
PodAntiAffinity: 1 requiredDuringSchedulingIgnoredDuringExecution [PodAffinityTerm], 2
    preferredDuringSchedulingIgnoredDuringExecution [WeightedPodAffinityTerm]
PodCondition: 1 type, 2 status, 3 lastProbeTime time, 4 lastTransitionTime time, 5 reason, 6 message
PodDNSConfig: 1 nameservers [s], 2 searches [s], 3 options [PodDNSConfigOption]
PodDNSConfigOption: 1 name, 2 value s?
PodDisruptionBudget: 1 metadata ObjectMeta, 2 spec PodDisruptionBudgetSpec, 3 status PodDisruptionBudgetStatus
PodDisruptionBudgetSpec: 1 minAvailable intstr?, 2 selector LabelSelector, 3 maxUnavailable intstr?, 4
    unhealthyPodEvictionPolicy s?
PodDisruptionBudgetStatus: 1 observedGeneration i, 2 disruptedPods {time}, 3 disruptionsAllowed i, 4 currentHealthy i,
    5 desiredHealthy i, 6 expectedPods i, 7 conditions [Condition]
PodFailurePolicy: 1 rules [PodFailurePolicyRule]
PodFailurePolicyOnExitCodesRequirement: 1 containerName s?, 2 operator, 3 values [i]
PodFailurePolicyOnPodConditionsPattern: 1 type, 2 status
PodFailurePolicyRule: 1 action, 2 onExitCodes PodFailurePolicyOnExitCodesRequirement, 3 onPodConditions
    [PodFailurePolicyOnPodConditionsPattern]
PodIP: 1 ip
PodOS: 1 name
PodReadinessGate: 1 conditionType
PodResourceClaim: 1 name, 3 resourceClaimName s?, 4 resourceClaimTemplateName s?
PodResourceClaimStatus: 1 name, 2 resourceClaimName s?
PodSchedulingGate: 1 name
PodSecurityContext: 1 seLinuxOptions SELinuxOptions, 8 windowsOptions WindowsSecurityContextOptions, 2 runAsUser i?, 6
    runAsGroup i?, 3 runAsNonRoot b?, 4 supplementalGroups [i], 12 supplementalGroupsPolicy s?, 5 fsGroup i?, 7
    sysctls [Sysctl], 9 fsGroupChangePolicy s?, 10 seccompProfile SeccompProfile, 11 appArmorProfile AppArmorProfile,
    13 seLinuxChangePolicy s?
PodSpec: 1 volumes [Volume], 20 initContainers [Container], 2 containers [Container], 34 ephemeralContainers
    [EphemeralContainer], 3 restartPolicy, 4 terminationGracePeriodSeconds i?, 5 activeDeadlineSeconds i?, 6
    dnsPolicy, 7 nodeSelector {s}, 8 serviceAccountName, 9 serviceAccount, 21 automountServiceAccountToken b?, 10
    nodeName, 11 hostNetwork b, 12 hostPID b, 13 hostIPC b, 27 shareProcessNamespace b?, 14 securityContext
    PodSecurityContext, 15 imagePullSecrets [LocalObjectReference], 16 hostname, 17 subdomain, 18 affinity Affinity,
    19 schedulerName, 22 tolerations [Toleration], 23 hostAliases [HostAlias], 24 priorityClassName, 25 priority i?,
    26 dnsConfig PodDNSConfig, 28 readinessGates [PodReadinessGate], 29 runtimeClassName s?, 30 enableServiceLinks b?,
    31 preemptionPolicy s?, 32 overhead {quantity}, 33 topologySpreadConstraints [TopologySpreadConstraint], 35
    setHostnameAsFQDN b?, 36 os PodOS, 37 hostUsers b?, 38 schedulingGates [PodSchedulingGate], 39 resourceClaims
    [PodResourceClaim], 40 resources ResourceRequirements
PodStatus: 1 phase, 2 conditions [PodCondition], 3 message, 4 reason, 11 nominatedNodeName, 5 hostIP, 16 hostIPs
    [HostIP], 6 podIP, 12 podIPs [PodIP], 7 startTime time, 10 initContainerStatuses [ContainerStatus], 8
    containerStatuses [ContainerStatus], 9 qosClass, 13 ephemeralContainerStatuses [ContainerStatus], 14 resize, 15
    resourceClaimStatuses [PodResourceClaimStatus]
PodTemplateSpec: 1 metadata ObjectMeta, 2 spec PodSpec
PolicyRule: 1 verbs [s], 2 apiGroups [s], 3 resources [s], 4 resourceNames [s], 5 nonResourceURLs [s]
PortStatus: 1 port i, 2 protocol, 3 error s?
PortworxVolumeSource: 1 volumeID, 2 fsType, 3 readOnly b
Preconditions: 1 uid s?, 2 resourceVersion s?
PreferredSchedulingTerm: 1 weight i, 2 preference NodeSelectorTerm
Probe: 1 ^ ProbeHandler, 2 initialDelaySeconds i, 3 timeoutSeconds i, 4 periodSeconds i, 5 successThreshold i, 6
    failureThreshold i, 7 terminationGracePeriodSeconds i?
ProbeHandler: 1 exec ExecAction, 2 httpGet HTTPGetAction, 3 tcpSocket TCPSocketAction, 4 grpc GRPCAction
ProjectedVolumeSource: 1 sources [VolumeProjection], 2 defaultMode i?
QuobyteVolumeSource: 1 registry, 2 volume, 3 readOnly b, 4 user, 5 group, 6 tenant
RBDPersistentVolumeSource: 1 monitors [s], 2 image, 3 fsType, 4 pool, 5 user, 6 keyring, 7 secretRef SecretReference,
    8 readOnly b
RBDVolumeSource: 1 monitors [s], 2 image, 3 fsType, 4 pool, 5 user, 6 keyring, 7 secretRef LocalObjectReference, 8
    readOnly b
ReplicaSet: 1 metadata ObjectMeta, 2 spec ReplicaSetSpec, 3 status ReplicaSetStatus
ReplicaSetCondition: 1 type, 2 status, 3 lastTransitionTime time, 4 reason, 5 message
ReplicaSetSpec: 1 replicas i?, 4 minReadySeconds i, 2 selector LabelSelector, 3 template PodTemplateSpec
ReplicaSetStatus: 1 replicas i, 2 fullyLabeledReplicas i, 4 readyReplicas i, 5 availableReplicas i, 3
    observedGeneration i, 6 conditions [ReplicaSetCondition]
ReplicationController: 1 metadata ObjectMeta, 2 spec ReplicationControllerSpec, 3 status ReplicationControllerStatus
ReplicationControllerCondition: 1 type, 2 status, 3 lastTransitionTime time, 4 reason, 5 message
ReplicationControllerSpec: 1 replicas i?, 2 selector {s}, 3 template PodTemplateSpec, 4 minReadySeconds i
ReplicationControllerStatus: 1 replicas i, 2 fullyLabeledReplicas i, 3 observedGeneration i, 4 readyReplicas i, 5
    availableReplicas i, 6 conditions [ReplicationControllerCondition]
ResourceAttributes: 1 namespace, 2 verb, 3 group, 4 version, 5 resource, 6 subresource, 7 name, 8 fieldSelector
    FieldSelectorAttributes, 9 labelSelector LabelSelectorAttributes
ResourceClaim: 1 name, 2 request
ResourceFieldSelector: 1 containerName, 2 resource, 3 divisor quantity
ResourceHealth: 1 resourceID, 2 health
ResourceQuota: 1 metadata ObjectMeta, 2 spec ResourceQuotaSpec, 3 status ResourceQuotaStatus
ResourceQuotaSpec: 1 hard {quantity}, 2 scopes [s], 3 scopeSelector ScopeSelector
ResourceQuotaStatus: 1 hard {quantity}, 2 used {quantity}
ResourceRequirements: 1 limits {quantity}, 2 requests {quantity}, 3 claims [ResourceClaim]
ResourceRule: 1 verbs [s], 2 apiGroups [s], 3 resources [s], 4 resourceNames [s]
ResourceStatus: 1 name, 2 resources [ResourceHealth]
Role: 1 metadata ObjectMeta, 2 rules [PolicyRule]
RoleBinding: 1 metadata ObjectMeta, 2 subjects [Subject], 3 roleRef RoleRef
RoleRef: 1 apiGroup, 2 kind, 3 name
RollingUpdateDaemonSet: 1 maxUnavailable intstr?, 2 maxSurge intstr?
RollingUpdateDeployment: 1 maxUnavailable intstr?, 2 maxSurge intstr?
RollingUpdateStatefulSetStrategy: 1 partition i?, 2 maxUnavailable intstr?
RuntimeClass: 1 metadata ObjectMeta, 2 handler, 3 overhead Overhead, 4 scheduling Scheduling
SELinuxOptions: 1 user, 2 role, 3 type, 4 level
Scale: 1 metadata ObjectMeta, 2 spec ScaleSpec, 3 status ScaleStatus
ScaleIOPersistentVolumeSource: 1 gateway, 2 system, 3 secretRef SecretReference, 4 sslEnabled b, 5 protectionDomain, 6
    storagePool, 7 storageMode, 8 volumeName, 9 fsType, 10 readOnly b
ScaleIOVolumeSource: 1 gateway, 2 system, 3 secretRef LocalObjectReference, 4 sslEnabled b, 5 protectionDomain, 6
    storagePool, 7 storageMode, 8 volumeName, 9 fsType, 10 readOnly b
ScaleSpec: 1 replicas i
ScaleStatus: 1 replicas i, 2 selector
Scheduling: 1 nodeSelector {s}, 2 tolerations [Toleration]
ScopeSelector: 1 matchExpressions [ScopedResourceSelectorRequirement]
ScopedResourceSelectorRequirement: 1 scopeName, 2 operator, 3 values [s]
SeccompProfile: 1 type, 2 localhostProfile s?
Secret: 1 metadata ObjectMeta, 5 immutable b?, 2 data {bytes}, 4 stringData {s}, 3 type
SecretEnvSource: 1 ^ LocalObjectReference, 2 optional b?
SecretKeySelector: 1 ^ LocalObjectReference, 2 key, 3 optional b?
SecretProjection: 1 ^ LocalObjectReference, 2 items [KeyToPath], 4 optional b?
SecretReference: 1 name, 2 namespace
SecretVolumeSource: 1 secretName, 2 items [KeyToPath], 3 defaultMode i?, 4 optional b?
SecurityContext: 1 capabilities Capabilities, 2 privileged b?, 3 seLinuxOptions SELinuxOptions, 10 windowsOptions
    WindowsSecurityContextOptions, 4 runAsUser i?, 8 runAsGroup i?, 5 runAsNonRoot b?, 6 readOnlyRootFilesystem b?, 7
    allowPrivilegeEscalation b?, 9 procMount s?, 11 seccompProfile SeccompProfile, 12 appArmorProfile AppArmorProfile
SelfSubjectAccessReview: 1 metadata ObjectMeta, 2 spec SelfSubjectAccessReviewSpec, 3 status SubjectAccessReviewStatus
SelfSubjectAccessReviewSpec: 1 resourceAttributes ResourceAttributes, 2 nonResourceAttributes NonResourceAttributes
SelfSubjectReview: 1 metadata ObjectMeta, 2 status SelfSubjectReviewStatus
SelfSubjectReviewStatus: 1 userInfo UserInfo
SelfSubjectRulesReview: 1 metadata ObjectMeta, 2 spec SelfSubjectRulesReviewSpec, 3 status SubjectRulesReviewStatus
SelfSubjectRulesReviewSpec: 1 namespace
Service: 1 metadata ObjectMeta, 2 spec ServiceSpec, 3 status ServiceStatus
ServiceAccount: 1 metadata ObjectMeta, 2 secrets [ObjectReference], 3 imagePullSecrets [LocalObjectReference], 4
    automountServiceAccountToken b?
ServiceAccountTokenProjection: 1 audience, 2 expirationSeconds i?, 3 path
ServiceBackendPort: 1 name, 2 number i
ServiceCIDR: 1 metadata ObjectMeta, 2 spec ServiceCIDRSpec, 3 status ServiceCIDRStatus
ServiceCIDRSpec: 1 cidrs [s]
ServiceCIDRStatus: 1 conditions [Condition]
ServicePort: 1 name, 2 protocol, 6 appProtocol s?, 3 port i, 4 targetPort intstr, 5 nodePort i
ServiceSpec: 1 ports [ServicePort], 2 selector {s}, 3 clusterIP, 18 clusterIPs [s], 4 type, 5 externalIPs [s], 7
    sessionAffinity, 8 loadBalancerIP, 9 loadBalancerSourceRanges [s], 10 externalName, 11 externalTrafficPolicy, 12
    healthCheckNodePort i, 13 publishNotReadyAddresses b, 14 sessionAffinityConfig SessionAffinityConfig, 19
    ipFamilies [s], 17 ipFamilyPolicy s?, 20 allocateLoadBalancerNodePorts b?, 21 loadBalancerClass s?, 22
    internalTrafficPolicy s?, 23 trafficDistribution s?
ServiceStatus: 1 loadBalancer LoadBalancerStatus, 2 conditions [Condition]
SessionAffinityConfig: 1 clientIP ClientIPConfig
SleepAction: 1 seconds i
StatefulSet: 1 metadata ObjectMeta, 2 spec StatefulSetSpec, 3 status StatefulSetStatus
StatefulSetCondition: 1 type, 2 status, 3 lastTransitionTime time, 4 reason, 5 message
StatefulSetOrdinals: 1 start i
StatefulSetPersistentVolumeClaimRetentionPolicy: 1 whenDeleted, 2 whenScaled
StatefulSetSpec: 1 replicas i?, 2 selector LabelSelector, 3 template PodTemplateSpec, 4 volumeClaimTemplates
    [PersistentVolumeClaim], 5 serviceName, 6 podManagementPolicy, 7 updateStrategy StatefulSetUpdateStrategy, 8
    revisionHistoryLimit i?, 9 minReadySeconds i, 10 persistentVolumeClaimRetentionPolicy
    StatefulSetPersistentVolumeClaimRetentionPolicy, 11 ordinals StatefulSetOrdinals
StatefulSetStatus: 1 observedGeneration i, 2 replicas i, 3 readyReplicas i, 4 currentReplicas i, 5 updatedReplicas i,
    6 currentRevision, 7 updateRevision, 9 collisionCount i?, 10 conditions [StatefulSetCondition], 11
    availableReplicas i
StatefulSetUpdateStrategy: 1 type, 2 rollingUpdate RollingUpdateStatefulSetStrategy
StorageOSPersistentVolumeSource: 1 volumeName, 2 volumeNamespace, 3 fsType, 4 readOnly b, 5 secretRef ObjectReference
StorageOSVolumeSource: 1 volumeName, 2 volumeNamespace, 3 fsType, 4 readOnly b, 5 secretRef LocalObjectReference
Subject: 1 kind, 2 apiGroup, 3 name, 4 namespace
SubjectAccessReview: 1 metadata ObjectMeta, 2 spec SubjectAccessReviewSpec, 3 status SubjectAccessReviewStatus
SubjectAccessReviewSpec: 1 resourceAttributes ResourceAttributes, 2 nonResourceAttributes NonResourceAttributes, 3
    user, 4 groups [s], 5 extra {strings}, 6 uid
SubjectAccessReviewStatus: 1 allowed b, 4 denied b, 2 reason, 3 evaluationError
SubjectRulesReviewStatus: 1 resourceRules [ResourceRule], 2 nonResourceRules [NonResourceRule], 3 incomplete b, 4
    evaluationError
SuccessPolicy: 1 rules [SuccessPolicyRule]
SuccessPolicyRule: 1 succeededIndexes s?, 2 succeededCount i?
Sysctl: 1 name, 2 value s?
TCPSocketAction: 1 port intstr, 2 host
Taint: 1 key, 2 value, 3 effect, 4 timeAdded time
TokenRequest: 1 metadata ObjectMeta, 2 spec TokenRequestSpec, 3 status TokenRequestStatus
TokenRequestSpec: 1 audiences [s], 4 expirationSeconds i?, 3 boundObjectRef BoundObjectReference
TokenRequestStatus: 1 token, 2 expirationTimestamp time
TokenReview: 1 metadata ObjectMeta, 2 spec TokenReviewSpec, 3 status TokenReviewStatus
TokenReviewSpec: 1 token, 2 audiences [s]
TokenReviewStatus: 1 authenticated b, 2 user UserInfo, 3 error, 4 audiences [s]
Toleration: 1 key, 2 operator, 3 value, 4 effect, 5 tolerationSeconds i?
TopologySpreadConstraint: 1 maxSkew i, 2 topologyKey, 3 whenUnsatisfiable, 4 labelSelector LabelSelector, 5 minDomains
    i?, 6 nodeAffinityPolicy s?, 7 nodeTaintsPolicy s?, 8 matchLabelKeys [s]
TypedLocalObjectReference: 1 apiGroup s?, 2 kind, 3 name
TypedObjectReference: 1 apiGroup s?, 2 kind, 3 name, 4 namespace s?
UncountedTerminatedPods: 1 succeeded [s], 2 failed [s]
UserInfo: 1 username, 2 uid, 3 groups [s], 4 extra {strings}
Volume: 1 name, 2 ^ VolumeSource
VolumeDevice: 1 name, 2 devicePath
VolumeMount: 1 name, 2 readOnly b, 7 recursiveReadOnly s?, 3 mountPath, 4 subPath, 5 mountPropagation s?, 6
    subPathExpr
VolumeMountStatus: 1 name, 2 mountPath, 3 readOnly b, 4 recursiveReadOnly s?
VolumeNodeAffinity: 1 required NodeSelector
VolumeProjection: 1 secret SecretProjection, 2 downwardAPI DownwardAPIProjection, 3 configMap ConfigMapProjection, 4
    serviceAccountToken ServiceAccountTokenProjection, 5 clusterTrustBundle ClusterTrustBundleProjection
VolumeResourceRequirements: 1 limits {quantity}, 2 requests {quantity}
VolumeSource: 1 hostPath HostPathVolumeSource, 2 emptyDir EmptyDirVolumeSource, 3 gcePersistentDisk
    GCEPersistentDiskVolumeSource, 4 awsElasticBlockStore AWSElasticBlockStoreVolumeSource, 5 gitRepo
    GitRepoVolumeSource, 6 secret SecretVolumeSource, 7 nfs NFSVolumeSource, 8 iscsi ISCSIVolumeSource, 9 glusterfs
    GlusterfsVolumeSource, 10 persistentVolumeClaim PersistentVolumeClaimVolumeSource, 11 rbd RBDVolumeSource, 12
    flexVolume FlexVolumeSource, 13 cinder CinderVolumeSource, 14 cephfs CephFSVolumeSource, 15 flocker
    FlockerVolumeSource, 16 downwardAPI DownwardAPIVolumeSource, 17 fc FCVolumeSource, 18 azureFile
    AzureFileVolumeSource, 19 configMap ConfigMapVolumeSource, 20 vsphereVolume VsphereVirtualDiskVolumeSource, 21
    quobyte QuobyteVolumeSource, 22 azureDisk AzureDiskVolumeSource, 23 photonPersistentDisk
    PhotonPersistentDiskVolumeSource, 26 projected ProjectedVolumeSource, 24 portworxVolume PortworxVolumeSource, 25
    scaleIO ScaleIOVolumeSource, 27 storageos StorageOSVolumeSource, 28 csi CSIVolumeSource, 29 ephemeral
    EphemeralVolumeSource, 30 image ImageVolumeSource
VsphereVirtualDiskVolumeSource: 1 volumePath, 2 fsType, 3 storagePolicyName, 4 storagePolicyID
WeightedPodAffinityTerm: 1 weight i, 2 podAffinityTerm PodAffinityTerm
WindowsSecurityContextOptions: 1 gmsaCredentialSpecName s?, 2 gmsaCredentialSpec s?, 3 runAsUserName s?, 4 hostProcess
    b?
discovery.EndpointPort: 1 name s?, 2 protocol s?, 3 port i?, 4 appProtocol s?
events.Event: 1 metadata ObjectMeta, 2 eventTime microtime, 3 series events.EventSeries, 4 reportingController, 5
    reportingInstance, 6 action, 7 reason, 8 regarding ObjectReference, 9 related ObjectReference, 10 note, 11 type,
    12 deprecatedSource EventSource, 13 deprecatedFirstTimestamp time, 14 deprecatedLastTimestamp time, 15
    deprecatedCount i
events.EventSeries: 1 count i, 2 lastObservedTime microtime
"""
