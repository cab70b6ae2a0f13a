//go:build e2e

package e2e

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// share makes a claim in the site's namespace upon a folder of this machine,
// which is the cluster's node too, and returns the folder.
func (s *site) share(name string) string {
	s.t.Helper()
	folder := s.t.TempDir()
	capacity := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: s.namespace + "-" + name},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: capacity, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}, PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: folder}},
			ClaimRef:               &corev1.ObjectReference{Namespace: s.namespace, Name: name},
		},
	}
	if _, err := admin.CoreV1().PersistentVolumes().Create(s.t.Context(), volume, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = admin.CoreV1().PersistentVolumes().Delete(background, volume.Name, metav1.DeleteOptions{})
	})
	none := ""
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: volume.Spec.AccessModes, StorageClassName: &none, VolumeName: volume.Name, Resources: corev1.VolumeResourceRequirements{Requests: capacity},
		},
	}
	if _, err := admin.CoreV1().PersistentVolumeClaims(s.namespace).Create(s.t.Context(), claim, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	waitFor(s.t, "the claim to be bound", 30*time.Second, func() bool {
		c, err := admin.CoreV1().PersistentVolumeClaims(s.namespace).Get(s.t.Context(), name, metav1.GetOptions{})
		return err == nil && c.Status.Phase == corev1.ClaimBound
	})
	return folder
}
