//! Schema entries of a pool's machine: image, disks and security.

/// In the notation of `notation.rs`.
pub const ENTRIES: &str = "
VirtualMachineConfiguration:
  imageReference! ImageReference | ignored: a node is what its provider makes
  nodeAgentSKUId! text(1..256) | ignored: there is one node agent
  windowsConfiguration WindowsConfiguration | checked, refused: Nodes run Linux; a pool of Windows nodes would wait for ever.
  dataDisks [DataDisk](..64) | ignored: a node is what its provider makes
  licenseType text(256) | ignored: a node is what its provider makes
  containerConfiguration object | refused: Tasks run as processes of the node; containers are not served yet.
  diskEncryptionConfiguration object | refused: Set the machine itself up that way.
  nodePlacementConfiguration NodePlacementConfiguration : since(2021-06-01)
  extensions [object] | refused: Set the machine itself up that way.
  osDisk OSDisk : since(2021-06-01) | ignored: a node is what its provider makes
  securityProfile SecurityProfile : since(2023-11-01)
  serviceArtifactReference ServiceArtifactReference : since(2023-11-01) | ignored: a node is what its provider makes

WindowsConfiguration:
  enableAutomaticUpdates flag

DataDisk:
  lun! int(0..63)
  diskSizeGB! int(1..32767)
  caching word(none|readonly|readwrite)
  storageAccountType word(standard_lrs|premium_lrs|standardssd_lrs)
  managedDisk ManagedDisk

OSDisk:
  caching word(none|readonly|readwrite) : since(2023-11-01)
  diskSizeGB int(1..32767) : since(2023-11-01)
  writeAcceleratorEnabled flag : since(2023-11-01)
  ephemeralOSDiskSettings DiffDiskSettings
  managedDisk ManagedDisk : since(2023-11-01)

DiffDiskSettings:
  placement word(cachedisk)

ManagedDisk:
  storageAccountType word(standard_lrs|premium_lrs|standardssd_lrs)
  diskEncryptionSet object | refused: Encrypt the machine's disks themselves.
  securityProfile object | refused: Encrypt the machine's disks themselves.

NodePlacementConfiguration:
  policy word(regional|zonal)

SecurityProfile:
  securityType word(trustedLaunch|confidentialVM) | checked, refused: Nodes boot as their machine does, which nobody here measures; leave the property out.
  encryptionAtHost flag | checked, refused: Encrypt the machine itself.
  uefiSettings UefiSettings
  proxyAgentSettings object | refused: Nodes boot as their machine does, which nobody here measures; leave the property out.

UefiSettings:
  secureBootEnabled flag | checked, refused: Nodes boot as their machine does, which nobody here measures; leave the property out.
  vTpmEnabled flag | checked, refused: Nodes boot as their machine does, which nobody here measures; leave the property out.

ServiceArtifactReference:
  id! text(1..1024)

ImageReference:
  publisher text(1024) : excludes(virtualMachineImageId,sharedGalleryImageId,communityGalleryImageId)
  offer text(1024) : excludes(virtualMachineImageId,sharedGalleryImageId,communityGalleryImageId)
  sku text(1024) : excludes(virtualMachineImageId,sharedGalleryImageId,communityGalleryImageId)
  version text(1024) : excludes(virtualMachineImageId,sharedGalleryImageId,communityGalleryImageId)
  virtualMachineImageId text(1..1024)
  sharedGalleryImageId text(1..1024) : excludes(virtualMachineImageId)
  communityGalleryImageId text(1..1024) : excludes(virtualMachineImageId,sharedGalleryImageId)
";
