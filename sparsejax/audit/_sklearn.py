"""What the audit takes of scikit-learn, an extra."""

from sklearn.base import clone as clone
from sklearn.ensemble import RandomForestClassifier as RandomForestClassifier
from sklearn.model_selection import GroupKFold as GroupKFold
