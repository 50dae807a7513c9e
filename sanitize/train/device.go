package train

import (
	"context"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/ort"
)

// device trains by a Step's graph, which does a chunk of steps in one run, so that the state stays where the provider has it.
type device struct {
	*ort.Session
	state, next *state // next receives a run's results
}

func newDevice(c *classifier.Classifier, o StepOptions, run ort.Options) (engine, error) {
	step, err := BuildStep(c, o)
	if err != nil {
		return nil, err
	}
	portable(step.Model.Graph)
	session, err := ort.NewModelSession(step.Model, run)
	if err != nil {
		return nil, err
	}
	return &device{session, newState(step.Parameters, step.Statistics), newState(step.Parameters, step.Statistics)}, nil
}

func (d *device) now() *state { return d.state }

func (d *device) steps(ctx context.Context, feed []*ort.Array, metrics *ort.Array) (int, error) {
	if err := d.Run(ctx, append(d.state.arrays(), feed...), append(d.next.arrays(), metrics)); err != nil {
		return 0, err
	}
	d.state, d.next = d.next, d.state
	return int(metrics.Shape[0]), nil
}
