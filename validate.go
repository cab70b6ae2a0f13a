package berth

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

var (
	namePattern       = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`)
	labelPrefix       = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$`)
	envPattern        = regexp.MustCompile(`^[-._a-zA-Z][-._a-zA-Z0-9]*$`)
	userPattern       = regexp.MustCompile(`^([0-9]+)(?::([0-9]+))?$`)
	groupPattern      = regexp.MustCompile(`^[a-z]([-a-z0-9]{0,28}[a-z0-9])?$`)
	infraNamePattern  = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`)
	maxEnvAndArgBytes = 1 << 20 // what Linux and etcd take with room for the rest of the pod
)

// ValidateName reports what is wrong with a name for people, or nil. Names are
// kept as label values, so the rules are those of Kubernetes' labels.
func ValidateName(name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("name %q: use at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit", name)
	}
	return nil
}

// ValidateInfrastructureName reports what is wrong with the name of an infrastructure, or nil.
func ValidateInfrastructureName(name string) error {
	if !infraNamePattern.MatchString(name) {
		return fmt.Errorf("infrastructure name %q: use at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit", name)
	}
	return nil
}

// ValidateLabel reports what is wrong with a label, or nil.
func ValidateLabel(key, value string) error {
	prefix, name, found := strings.Cut(key, "/")
	if !found {
		prefix, name = "", key
	} else if !labelPrefix.MatchString(prefix) {
		return fmt.Errorf("label %q: %q is not a DNS name", key, prefix)
	}
	if !namePattern.MatchString(name) {
		return fmt.Errorf("label %q: a key is at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit", key)
	}
	if prefix == "berth.run" || key == LabelManagedBy {
		return fmt.Errorf("label %q is set by Berth itself; choose another key", key)
	}
	if value != "" && !namePattern.MatchString(value) {
		return fmt.Errorf("label %s=%q: a value is at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit", key, value)
	}
	return nil
}

// ParseUser reads "UID" or "UID:GID"; a missing GID is the UID's own number,
// because a pod with runAsNonRoot and no group would run as group 0.
func ParseUser(user string) (uid, gid int64, err error) {
	m := userPattern.FindStringSubmatch(user)
	if m == nil {
		return 0, 0, fmt.Errorf("user %q: write numbers, UID or UID:GID, such as 1000:1000; names can't be checked before the image is there", user)
	}
	uid, err = strconv.ParseInt(m[1], 10, 32)
	if err != nil {
		return 0, 0, fmt.Errorf("user %q: the UID is out of range", user)
	}
	gid = uid
	if m[2] != "" {
		if gid, err = strconv.ParseInt(m[2], 10, 32); err != nil {
			return 0, 0, fmt.Errorf("user %q: the GID is out of range", user)
		}
	}
	return uid, gid, nil
}

// Validate reports the first thing that is wrong with the spec, or nil. The
// error is CodeInvalid and names the field.
func (s *TaskSpec) Validate() error {
	if err := s.validate(); err != nil {
		return Errorf(CodeInvalid, "%w", err)
	}
	return nil
}

func (s *TaskSpec) validate() error {
	if s.Image != "" || s.Call == nil { // that of a call is its package's
		if err := ValidateImage(s.Image); err != nil {
			return err
		}
	}
	if s.Name != "" {
		if err := ValidateName(s.Name); err != nil {
			return err
		}
	}
	if s.Infrastructure != "" {
		if err := ValidateInfrastructureName(s.Infrastructure); err != nil {
			return err
		}
	}
	if s.CPU != "" {
		if _, err := s.CPU.MilliCPU(); err != nil {
			return fmt.Errorf("cpu %w", err)
		}
	}
	if s.Memory != "" {
		if _, err := s.Memory.Bytes(); err != nil {
			return fmt.Errorf("memory %w", err)
		}
	}
	if s.EphemeralStorage != "" {
		if _, err := s.EphemeralStorage.Bytes(); err != nil {
			return fmt.Errorf("ephemeral storage %w", err)
		}
	}
	if s.Priority < -MaxPriority || s.Priority > MaxPriority {
		return fmt.Errorf("priority %d: use %d to %d", s.Priority, -MaxPriority, MaxPriority)
	}
	if s.GPU < 0 {
		return fmt.Errorf("gpu %d: the number of GPUs can't be negative", s.GPU)
	}
	if s.Retries < 0 || s.Retries > 1000 {
		return fmt.Errorf("retries %d: use 0 to 1000", s.Retries)
	}
	if s.Timeout < 0 || (s.Timeout > 0 && s.Timeout < time.Second) {
		return fmt.Errorf("timeout %s: Kubernetes counts whole seconds, so use 1s or more", s.Timeout)
	}
	if s.User != "" {
		if _, _, err := ParseUser(s.User); err != nil {
			return err
		}
	}
	for key, value := range s.Labels {
		if key == LabelRun && IsRunID(value) {
			continue // of a call of that run
		}
		if s.Cluster != nil && (key == LabelCluster && value == s.Cluster.Cluster || key == LabelGroup && value == s.Cluster.Group) {
			continue
		}
		if err := ValidateLabel(key, value); err != nil {
			return err
		}
	}
	switch s.Pull {
	case PullDefault, PullMissing, PullAlways, PullNever:
	default:
		return fmt.Errorf("pull %q: use missing, always or never", s.Pull)
	}
	return s.validateProcess()
}

func (s *TaskSpec) validateProcess() error {
	size := 0
	for _, env := range s.Env {
		if err := env.validate(); err != nil {
			return err
		}
		size += len(env.Name) + len(env.Value)
	}
	for _, words := range [][]string{s.Entrypoint, s.Args} {
		for _, word := range words {
			if strings.ContainsRune(word, 0) {
				return fmt.Errorf("argument %q has a NUL byte", word)
			}
			size += len(word)
		}
	}
	if err := s.validateAgent(); err != nil {
		return err
	}
	if size > maxEnvAndArgBytes {
		return fmt.Errorf("arguments and environment take %d bytes; at most %d fit into a pod: put large data into files", size, maxEnvAndArgBytes)
	}
	return nil
}

func (v EnvVar) validate() error {
	if !envPattern.MatchString(v.Name) {
		return fmt.Errorf("environment variable %q: a name is letters, digits, '_', '-' and '.', not beginning with a digit", v.Name)
	}
	if strings.ContainsRune(v.Value, 0) {
		return fmt.Errorf("environment variable %s: the value has a NUL byte", v.Name)
	}
	return nil
}
