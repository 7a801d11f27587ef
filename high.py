_base_ = 'low.yaml'
lr = 0.2
