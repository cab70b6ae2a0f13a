package kube

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/klog/v2"
)

func TestClientGoWritesNothingToStderr(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stderr")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	before := os.Stderr
	os.Stderr = file
	defer func() { os.Stderr = before }()
	QuietClientGo()
	klog.Background().Error(errors.New("cut"), "Unexpected error when reading response body")
	klog.ErrorS(errors.New("cut"), "an error")
	klog.Warning("a warning")
	klog.Flush()
	if text, err := os.ReadFile(path); err != nil || len(text) > 0 {
		t.Errorf("%q, %v", text, err)
	}
}
