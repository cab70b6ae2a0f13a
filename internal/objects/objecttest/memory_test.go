package objecttest_test

import (
	"testing"

	"github.com/berth-run/berth/internal/objects/objecttest"
)

func TestMemoryIsAnObjectStore(t *testing.T) { objecttest.Suite(t, &objecttest.Memory{}) }
